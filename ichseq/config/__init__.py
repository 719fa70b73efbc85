"""Settings of a run: frozen dataclasses, read from YAML and `--set section.key=value`.

Sections are model, train and augment; slice, frozen and joint hold keys of train that go for that stage alone, so that
one file can describe a run of several stages. An unknown key, a wrong type or a value out of range is a ConfigError
that names it.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from ichseq.errors import ConfigError
from ichseq.windows import DEFAULT_WINDOWS

STAGES: tuple[str, ...] = ("slice", "frozen", "joint")


@dataclass(frozen=True)
class ModelConfig:
    """What the network is; every field is an argument of `ichseq.Model` of the same name."""

    backbone: str = "resnext101_32x8d.fb_wsl_ig1b_ft_in1k"  # any timm model by name
    pretrained: bool | str = True  # true: timm's hub; false: random weights; a path: a local file
    image_size: int = 384  # pixels, square
    windows: tuple[str, ...] = DEFAULT_WINDOWS  # one input channel each
    neighbours: int = 0  # slices on each side that the backbone reads with a slice, as further channels
    normalise: bool = True  # published mean and standard deviation of each window
    crop: Literal["series", "slice", "none"] = "series"  # cut the air around the head: one box a series, or a slice
    views: tuple[Literal["flip", "transpose"], ...] = ()  # averaged with the slice as it is, outside training
    window_first: bool = False  # window before resizing, as the published pipeline did
    pool: Literal["avg", "max", "catavgmax"] = "avg"  # over the backbone's last feature map; small bleeds like max
    # Strides of the backbone's maps, such as 4, 8, 16, after which a convolution across three slices runs.
    cross_slice: tuple[int, ...] = ()
    # How the embeddings of a series are read, a name of ichseq.model.sequence.parts.PARTS; none: each slice by itself.
    sequence: Literal["lstm2", "lstm1", "lstm2_delta", "logits", "gru", "transformer", "conv", "none"] = "lstm2"
    hidden_size: int = 256  # units of each direction of an LSTM or GRU; width of the other sequence parts
    sequence_inputs: tuple[Literal["position", "spacing"], ...] = ()  # appended to what the sequence part reads
    dropout: float = 0.0  # on the embedding, training only
    channel_dropout: float = 0.0  # share of whole embedding channels, drawn for each series, training only
    freeze_bn: bool | Literal["auto"] = "auto"  # auto: frozen where the backbone starts from trained weights
    channels_last: bool | Literal["auto"] = "auto"  # memory format of the backbone; auto: on a GPU, the faster one


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation A of the published pipeline: probabilities and ranges."""

    flip: float = 0.5
    transpose: float = 0.5
    affine: float = 0.3  # probability of shift, scale and rotation together
    shift: float = 0.05  # of the image's side, both ways
    scale: float = 0.05
    rotate: float = 20.0  # degrees, both ways
    per: Literal["series", "slice"] = "series"  # one draw for all slices of a series, or one for each


@dataclass(frozen=True)
class TrainConfig:
    """How a stage is trained. Fields without a default here (None) take the stage's, see `STAGE_DEFAULTS`."""

    epochs: int | None = None
    backbone_lr: float | None = None
    sequence_lr: float | None = None
    cross_slice_lr: float = 1e-2  # joint stage: of the convolutions across slices, which begin at zero
    patients_per_batch: int = 4  # series a step and process, joint and frozen stage
    slices_per_batch: int = 32  # slices a step and process, slice stage
    accumulate: int = 1  # batches summed before the optimizer steps
    mixup: float = 0.0  # slice stage: slices mixed in pairs, their shares drawn from Beta(mixup, mixup); 0: none
    negatives: float = 1.0  # share of the patients without bleeding that an epoch reads, drawn anew for each
    window: int = 0  # joint and frozen stage: neighbouring slices (2 or more) that an epoch reads of a series; 0: all
    freeze_epochs: int = 0  # joint stage: the backbone is left alone for the first n epochs
    warmup_steps: int = 100
    schedule: Literal["constant", "cosine"] = "constant"
    decay: float = 1.0  # the constant schedule's factor after each epoch
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    aux_weight: float = 0.2  # weight of the slice head's loss in the joint stage (deep supervision)
    ema: float = 0.0  # decay of the moving average of the weights; 0: none
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU that has it
    checkpointing: Literal["auto", "on", "off"] = "auto"  # recompute the backbone in the backward pass
    chunk_size: int | Literal["auto"] = "auto"  # slices that the backbone reads at once; auto: what fits
    compile: bool = False  # torch.compile for the backbone
    embeddings: Literal["float32", "float16"] = "float32"  # as the frozen stage keeps them
    checkpoint_every: int = 500  # steps
    keep_epochs: int = 0  # keep the weights of the last n epochs
    workers: int = 2  # threads that read ahead
    seed: int = 0


STAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    # The published rates and lengths; joint: one rate for each part.
    "slice": {"epochs": 5, "backbone_lr": 2e-5, "sequence_lr": 2e-5},
    "frozen": {"epochs": 6, "backbone_lr": 0.0, "sequence_lr": 1e-4},
    "joint": {"epochs": 5, "backbone_lr": 2e-5, "sequence_lr": 1e-4},
}


@dataclass(frozen=True)
class Config:
    """Everything that a run is made from."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def to_dict(self) -> dict[str, Any]:
        """As plain dicts and lists, as YAML and JSON take them."""
        plain = dataclasses.asdict(self)
        for section in plain.values():
            section |= {name: list(value) for name, value in section.items() if isinstance(value, tuple)}
        return plain


def load_config(
    stage: str, path: Path | None = None, overrides: Sequence[str] = (), *, base: dict[str, Any] | None = None
) -> Config:
    """Configuration of a stage: defaults, then `base`, then the YAML file, then `section.key=value` settings.

    Raises:
        ConfigError: an unknown stage, section, key or a value that does not fit, named.
    """
    if stage not in STAGES:
        raise ConfigError(f"stage {stage!r} does not exist; choose one of {', '.join(STAGES)}")
    values: dict[str, dict[str, Any]] = {f.name: {} for f in fields(Config)}
    values["train"].update(STAGE_DEFAULTS[stage])
    if base is not None:
        _merge(values, base, "the run's config.yaml", stage)
    if path is not None:
        _merge(values, read_yaml(path), str(path), stage)
    for text in overrides:
        key, equals, raw = text.partition("=")
        section, dot, name = key.partition(".")
        if not (equals and dot):
            raise ConfigError(f"--set {text}: write section.key=value, for example train.epochs=3")
        try:
            _merge(values, {section: {name: yaml.safe_load(raw)}}, f"--set {text}", stage)
        except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
            raise ConfigError(f"--set {text}: {raw!r} is not a YAML value") from None
    for key, value in STAGE_DEFAULTS[stage].items():
        if values["train"][key] is None:
            values["train"][key] = value
    sections = {f.name: _build(f.name, _class_of(f.name), values[f.name]) for f in fields(Config)}
    config = Config(**sections)
    _check_ranges(config)
    return config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")


def _class_of(section: str) -> type:
    return {"model": ModelConfig, "train": TrainConfig, "augment": AugmentConfig}[section]


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a YAML file, as they stand there.

    Raises:
        ConfigError: it can't be read, or is no such file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:  # before ValueError, which UnicodeDecodeError is
        raise ConfigError(f"{path}: the configuration can't be read ({type(error).__name__})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path}: not valid YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: a configuration is sections (model, train, augment, or a stage's name) with keys below them"
        )
    return content


def _merge(values: dict[str, dict[str, Any]], new: dict[str, Any], where: str, stage: str) -> None:
    """Put new values over the old ones; a section named after a stage goes over `train`, for that stage alone."""
    for section in sorted(new, key=lambda name: name in STAGES):  # a stage's own settings come last
        content = new[section]
        if section not in values and section not in STAGES:
            raise ConfigError(f"{where}: no section {section!r}; {did_you_mean(str(section), [*values, *STAGES])}")
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: {section} has to hold keys with values, not {content!r}")
        target = "train" if section in STAGES else section
        hints = typing.get_type_hints(_class_of(target))
        for key, value in content.items():
            if key not in hints:
                raise ConfigError(f"{where}: no key {section}.{key}; {did_you_mean(str(key), list(hints))}")
            fit_value(value, hints[key], f"{section}.{key}")
        if section in (stage, target):
            values[target].update(content)


def did_you_mean(word: str, known: list[str]) -> str:
    """What else could be meant, of the names that are known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _build(section: str, cls: type, values: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    return cls(**{key: fit_value(value, hints[key], f"{section}.{key}") for key, value in values.items()})


def fit_value(value: Any, hint: Any, name: str) -> Any:
    """The value as the type asked for (YAML reads 1e-4 as text and 1 as an integer), or a ConfigError."""
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    for option in options:
        if typing.get_origin(option) is Literal:
            choices = typing.get_args(option)
            # YAML 1.1 reads on, off and no as booleans.
            word = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
            if word == "off" and "off" not in choices and "no" in choices:
                word = "no"
            if word in choices:
                return word
            if len(options) == 1:
                raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(map(str, choices))}")
        elif typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            return tuple(fit_value(item, typing.get_args(option)[0], name) for item in value)
        elif option in (int, str, bool, type(None)) and type(value) is option:
            return value
        elif option is float and not isinstance(value, bool):
            try:
                return float(value)
            except (TypeError, ValueError):
                continue
    wanted = " or ".join("list" if typing.get_origin(o) is tuple else getattr(o, "__name__", str(o)) for o in options)
    raise ConfigError(f"{name} is {value!r}; it has to be {wanted}")


def _check_ranges(config: Config) -> None:
    """Refuse numbers that can't work, before anything is built from them."""
    least = {
        "model": {"image_size": 32, "hidden_size": 1, "neighbours": 0},
        "train": {"epochs": 1, "patients_per_batch": 1, "slices_per_batch": 1, "accumulate": 1, "chunk_size": 1}
        | {"checkpoint_every": 1, "workers": 0, "warmup_steps": 0, "seed": 0, "keep_epochs": 0}
        | {"mixup": 0, "freeze_epochs": 0, "window": 0}
        | {"backbone_lr": 0, "sequence_lr": 0, "cross_slice_lr": 0, "weight_decay": 0, "decay": 0, "aux_weight": 0}
        | {"clip_norm": 0},
        "augment": {"shift": 0, "scale": 0, "rotate": 0},
    }
    below_one = {"model": ["dropout", "channel_dropout"], "train": ["ema", "negatives"]}
    below_one["augment"] = ["flip", "transpose", "affine"]
    for section, limits in least.items():
        for key, limit in limits.items():
            value = getattr(getattr(config, section), key)
            if value not in (None, "auto") and not limit <= value < math.inf:
                raise ConfigError(f"{section}.{key} is {value}; it has to be a number of at least {limit}")
    if config.train.window == 1:
        raise ConfigError("train.window is 1; a window has at least 2 slices, and 0 reads whole series")
    for section, keys in below_one.items():
        for key in keys:
            value = getattr(getattr(config, section), key)
            if not 0 <= value <= 1 or (value == 1 and key in ("dropout", "channel_dropout", "ema")):
                raise ConfigError(f"{section}.{key} is {value}; it has to be between 0 and 1")
