"""What the network is: the settings of `ichseq.Model`, in the sections that read them."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from ichseq.config.fields import (
    NOT_EMPTY,
    STRICT,
    WORDS,
    AtLeast0,
    Distinct,
    OneOf,
    Rate,
    ReadBy,
    SameAsStart,
    Several,
    ShareBelow1,
    Switch,
    settings_of,
)
from ichseq.windows import DEFAULT_WINDOWS, WINDOWS


def _both_ends(slices: int) -> int:
    if slices == 1:
        raise ValueError("at least 2 slices are read of a series, its ends, and 0 reads all")
    return slices


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BackboneConfig:
    """The backbone, and how its maps become an embedding."""

    backbone: Annotated[str, SameAsStart()] = Field(default="resnext101_32x8d.fb_wsl_ig1b_ft_in1k", kw_only=False)
    """Any timm model by name."""

    pool: Literal["avg", "max", "catavgmax", "head_avg"] = "avg"
    """How the backbone's last feature map becomes one vector: the mean, the maximum, or both, which doubles its length;
    small bleeds like the maximum. head_avg: the mean of what the layers of timm's head, such as those of a MaxViT, make
    of each place of the map; else they read the pooled map."""

    cross_slice: Annotated[Distinct[int], ReadBy("frozen", "joint"), SameAsStart()] = ()
    """Strides of the backbone's feature maps, such as 4, 8, 16, after which a depthwise convolution across three slices
    runs: what lies at one place is seen at that place of the neighbours. It begins as if it were not there and is
    trained in the joint stage; a frozen stage after that one needs the same."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InputConfig:
    """What the backbone sees of a slice."""

    image_size: Annotated[int, Field(ge=32, le=2048)] = 384
    """Side in pixels of what the backbone sees, a square."""

    windows: Annotated[Several[Annotated[str, OneOf(WINDOWS)]], NOT_EMPTY, SameAsStart()] = DEFAULT_WINDOWS
    """Windows by name, an input channel each; bone needs a set that was prepared with --bone."""

    neighbours: Annotated[int, Field(ge=0, le=32)] = 0
    """Slices on each side that the backbone reads with a slice, each in every window, as further input channels in the
    order of the slices. A start with fewer (--init, pretrained) gets more channels: its weights stand at the middle
    slices' channels, zeros at the others'."""

    edge: Literal["repeat", "zero"] = "repeat"
    """Neighbours beyond the ends of a series: its last slice again; or a slice that is 0, black, in every window scaled
    to 0..1, and normalised as any other."""

    normalise: Annotated[bool | Literal["symmetric"], WORDS] = True
    """true: subtract the published mean of each window and divide by its standard deviation; none are published of
    bone. false: each window is 0..1. symmetric: -1..1."""

    crop: Literal["series", "slice", "none", "centre"] = "series"
    """Cut the air around the head: one box for all slices of a series; or each slice by itself, as the published
    pipeline did; or keep the whole image; or centre: image_size pixels around the image's centre as they are, black
    beyond its edges; an image over 1.25 times that is resized as a whole, by areas."""

    window_first: Switch = False
    """Window before the resampling, as the published pipeline did, and not after it."""

    views: Annotated[Several[Literal["flip", "transpose"]], ReadBy("frozen", "joint")] = ()
    """Outside training, and in the embeddings that the frozen stage keeps, a slice's embedding is the mean over the
    slice as it is and these views of it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EmbeddingConfig(InputConfig, BackboneConfig):
    """All that decides a slice's embedding, the weights apart."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SequenceConfig:
    """How the embeddings of a series are read."""

    sequence: Annotated[
        Literal[
            "lstm2",
            "lstm1",
            "lstm2_delta",
            "logits",
            "gru",
            "gru_projected",
            "transformer",
            "transformer_post",
            "conv",
            "none",
        ],
        ReadBy("frozen", "joint", otherwise="none"),
    ] = "lstm2"
    """The sequence part by name; none: each slice by itself."""

    hidden_size: Annotated[int, Field(ge=1, le=2048), ReadBy("frozen", "joint")] = 256
    """Units of each direction of an LSTM or GRU; width of transformer (rounded up to a multiple of 4) and conv, and of
    the layer between the attentions of transformer_post."""

    sequence_dropout: Annotated[ShareBelow1, ReadBy("frozen", "joint")] = 0.0
    """Dropout within the sequence part, in training: between the layers of gru_projected and before its answer; on the
    input and within the layers of transformer_post."""

    sequence_slices: Annotated[AtLeast0, AfterValidator(_both_ends), ReadBy("frozen", "joint")] = 0
    """Of a longer series so many slices, evenly spaced, go through the sequence part; the others take the answer of the
    nearest. 0: all."""

    sequence_inputs: Annotated[Distinct[Literal["position", "spacing"]], ReadBy("frozen", "joint")] = ()
    """What is appended to each slice's embedding for the sequence part."""

    dropout: ShareBelow1 = 0.0
    """Dropout on the embedding, in training."""

    channel_dropout: Annotated[ShareBelow1, ReadBy("frozen", "joint")] = 0.0
    """Share of the embedding's channels that the sequence part misses, in training; the same ones for all slices of a
    series, drawn for each series and step."""

    slice_dropout: Annotated[ShareBelow1, ReadBy("frozen", "joint")] = 0.0
    """Share of the slices whose embedding the sequence part misses, in training."""

    embedding_noise: Annotated[Rate, ReadBy("frozen", "joint")] = 0.0
    """Noise on the embeddings that the sequence part reads, in training: its standard deviation as a part of that of
    the slice's embedding."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExamConfig:
    """How a series is answered for as a whole."""

    exam: Annotated[Literal["none", "attention", "pooled", "max"], ReadBy("frozen", "joint")] = "none"
    """The exam head: attention over the slices for each label, on what the sequence part knows of them; pooled, the
    slices' logits weighted by their softmax, or max, the highest of them, both without weights of their own; none: a
    network is trained on slices alone, and an exam's score is the highest of its slices."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StartConfig:
    """How the network starts and runs."""

    pretrained: Annotated[Literal["auto", "package"] | bool | str, WORDS] = "auto"
    """Weights that the backbone starts from. true: timm's, fetched from its hub, or where that can't be reached from an
    installed package; package: from that alone (tf_efficientnet_lite0 to 2, extra imagenet); false: random ones; other
    text: the path of a local file (.safetensors, or a .pth, .pt or .bin that holds nothing but tensors); auto: a
    training run takes true, and a Model made in Python starts from random ones."""

    drop_path: ShareBelow1 | None = None
    """Stochastic depth in training: the share of slices for which the backbone's last block is left out; it rises to
    there from 0 for the first. For backbones that have it in timm; null: timm's own for the backbone."""

    freeze_bn: Annotated[bool | Literal["auto"], WORDS] = "auto"
    """Fix the backbone's batch-norm statistics in training; auto: where it starts from trained weights."""

    channels_last: Annotated[bool | Literal["auto"], WORDS] = "auto"
    """Memory format of the backbone, which changes results by rounding alone; auto: a training run on a GPU takes the
    faster one, measured at its start, and all else false."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig(StartConfig, ExamConfig, SequenceConfig, EmbeddingConfig):
    """What the network is; every field is a keyword of `ichseq.Model`."""


def embedding_settings(config: EmbeddingConfig) -> dict[str, Any]:
    """What decides a slice's embedding, the weights apart, by name; as JSON takes it."""
    return _plain(config, EmbeddingConfig)


def weights_file(config: StartConfig) -> Path | None:
    """The local file of weights that the backbone starts from; None: they come from elsewhere."""
    if isinstance(config.pretrained, str) and config.pretrained not in ("auto", "package"):
        return Path(config.pretrained)
    return None


def differing_from_start(config: ModelConfig, start: ModelConfig) -> str | None:
    """The first setting that keeps a model from starting from another's weights; None: there is none."""
    for setting in settings_of(ModelConfig):
        asked, found = getattr(config, setting.name), getattr(start, setting.name)
        if setting.mark(SameAsStart) and found not in ((), asked):
            return setting.name
    return None


def settings_of_start(start: ModelConfig) -> dict[str, Any]:
    """What a run takes over from the network that it starts from, by name; as YAML takes it.

    All that decides a slice's embedding, the sequence part, if there is one, and the exam head.
    """
    sequence = _plain(start, SequenceConfig) if start.sequence != "none" else {}
    return _plain(start, EmbeddingConfig) | sequence | _plain(start, ExamConfig)


def _plain(config: Any, section: type[Any]) -> dict[str, Any]:
    """The fields of a section, as YAML and JSON take them."""
    values = {setting.name: getattr(config, setting.name) for setting in settings_of(section)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def resolved(config: ModelConfig) -> ModelConfig:
    """The same without "auto", as a network is that has its weights: nothing is left to fetch."""
    trained = config.pretrained not in (False, "auto")
    return dataclasses.replace(
        config,
        pretrained=False,
        freeze_bn=trained if config.freeze_bn == "auto" else config.freeze_bn,
        channels_last=config.channels_last is True,
    )
