"""The network: Hounsfield units in, six logits a slice out, and six an exam if asked for.

    hu (S, H, W) -> crop, warp, resize, windows (S, C, size, size) -> timm backbone (S, D) -> sequence part (S, 6)
                                                                                           -> exam head (P, 6)

S is the number of slices of all series of a batch, stacked in order; no padding ever reaches the backbone. The module
owns geometry, windows and normalisation, so that training, prediction and other code can't disagree on them.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ichseq.appearance import Appearance
from ichseq.config import ModelConfig, resolved, takes_fields_of
from ichseq.devices import choose_device
from ichseq.geometry import VIEWS
from ichseq.model.backbone import feature_count, input_channels, make_backbone, refuse_larger
from ichseq.model.batch_norm import batch_norms, copied_statistics, put_back
from ichseq.model.chunks import Checkpointing, Chunks, OfChunks, device_of, reach
from ichseq.model.cross_slice import add_cross_slice
from ichseq.model.heads import Heads
from ichseq.model.input import NetworkInput
from ichseq.model.output import Output
from ichseq.model.saved import (
    DESCRIPTION,
    WEIGHTS,
    Description,
    damage_explained,
    numbers_in,
    read_model,
    refuse_other_tensors,
    write_model,
)
from ichseq.model.stack import Span
from ichseq.networks.named import network_folder


class Model(Heads):
    """One network over whole series: a timm backbone reads every slice, a sequence part reads the slices in order.

    The keywords are the fields of `ichseq.config.ModelConfig`; `ichseq settings model` lists them.

    Attributes:
        config: all settings, resolved: without "auto", and with pretrained false, since the weights are there.
        trained_on: where the weights come from; travels with them.
        weights_sha256: of the file that the weights were loaded from; None: they come from none, or may have changed
            since: the model was put into training, or took other weights.
        network_input: Hounsfield units to what the backbone sees.
        backbone: images (n, C, size, size) to embeddings (n, D).
        chunks: sends slices through the backbone.
        chunk_size: slices that the backbone reads at once. With live batch norm, part of the computation.
        checkpointing: "on" recomputes the backbone in the backward pass, "auto" when a step would not fit the memory.
        backbone_slices: how many slices the backbone has read so far.
        features: D.
        slice_head, sequence, exam, sequence_share, exam_share: see `ichseq.model.heads.Heads`.

    Raises:
        ConfigError: a setting or weights file that does not work, or weights that can't be fetched.

    Example:
        >>> import ichseq
        >>> model = ichseq.Model.load("runs/first/joint/fold0")
        >>> model.trained_on["stage"]
        'joint'
    """

    chunk_size = OfChunks[int]("size")
    checkpointing = OfChunks[Checkpointing]("checkpointing")
    backbone_slices = OfChunks[int]("slices_read")

    @takes_fields_of(ModelConfig, "model")
    def __init__(self, config: ModelConfig) -> None:
        """Make the network, with the weights that it starts from."""
        super().__init__()
        self.config = resolved(config)
        self.trained_on: dict[str, Any] = {}
        self.weights_sha256: str | None = None
        self._frozen_backbone = False
        self.network_input = NetworkInput(self.config)
        self.backbone = make_backbone(config)
        self.use_channels_last(bool(self.config.channels_last))
        look = partial(feature_count, self.backbone, self.input_channels, config.image_size)
        self.features = look()
        if config.cross_slice:
            add_cross_slice(self.backbone, config, look)
        self.chunks = Chunks((self.input_channels, config.image_size, config.image_size))
        self.add_heads(self.features)

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """The network of a configuration."""
        return cls(**{item.name: getattr(config, item.name) for item in dataclasses.fields(config)})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return device_of(self.backbone)

    @property
    def input_channels(self) -> int:
        """Channels that the backbone reads: every window of a slice and of its neighbours."""
        return input_channels(self.config)

    @property
    def reach(self) -> int:
        """On how many slices to each side an embedding depends."""
        return self.config.neighbours + reach(self.backbone)

    # ---- the way through -------------------------------------------------------------------------------------------

    def forward(
        self,
        hu: Tensor,
        lengths: Tensor,
        *,
        warp: Tensor | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        boxes: Tensor | None = None,
        appearance: Appearance | None = None,
        positions_mm: Tensor | None = None,
    ) -> Output:
        """Logits of every slice; a series' logits do not depend on what else is in the batch.

        Args:
            hu: (S, H, W) Hounsfield units, integers or floats, slices of all series stacked in order; or (S, 2
                neighbours + 1, H, W), each slice between its neighbours, where a batch does not hold whole series.
                May stay on the CPU: each chunk is moved to the model's device when its turn comes.
            lengths: (P,) slices of each series, on the CPU; their sum is S.
            warp: (P, 3, 3) augmentation, from output to input coordinates, both -1..1 over the cropped square; or
                (S, 3, 3), one for each slice.
            sizes: true (rows, columns) of each series where a batch of mixed sizes was padded; default all (H, W).
            boxes: (P, 4) crop boxes from `crop_boxes`, where a batch does not hold whole series.
            appearance: augmentation of what the slices show, of each series or of each slice.
            positions_mm: (S,) places of the slices along the scan's axis, see `sequence_logits`.

        Raises:
            ValueError: the sequence part needs positions and gets None.
        """
        embeddings = self.embed(hu, lengths, warp=warp, sizes=sizes, boxes=boxes, appearance=appearance)
        return self.answer(embeddings, lengths, positions_mm)

    if TYPE_CHECKING:
        __call__ = forward

    def embed(
        self,
        hu: Tensor,
        lengths: Tensor,
        *,
        warp: Tensor | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        boxes: Tensor | None = None,
        appearance: Appearance | None = None,
    ) -> Tensor:
        """Pooled embedding of every slice, (S, D), out of training the mean over `views`; arguments as in `forward`."""
        spans, boxes, warp, shown = self.network_input.arrange(hu, lengths, sizes, boxes, warp, appearance)
        seen = partial(self._seen, hu, boxes=boxes, appearance=shown)
        embeddings = self.chunks.embed(self.backbone, spans, partial(seen, warp=warp))
        views = () if self.training else self.config.views
        for name in views:
            view = VIEWS[name].expand(len(boxes), 3, 3)
            view = view if warp is None else warp.cpu() @ view
            embeddings = embeddings + self.chunks.embed(self.backbone, spans, partial(seen, warp=view))
        return embeddings / (1 + len(views)) if views else embeddings

    def images(
        self,
        hu: Tensor,
        lengths: Tensor,
        *,
        warp: Tensor | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        boxes: Tensor | None = None,
        appearance: Appearance | None = None,
    ) -> Tensor:
        """What the backbone sees of every slice, (S, C, size, size), all at once; arguments as in `forward`."""
        spans, boxes, warp, shown = self.network_input.arrange(hu, lengths, sizes, boxes, warp, appearance)
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            return self.network_input(hu, spans, boxes, warp, shown)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pooled embedding (S, D) of `images`, or of what became of them, each by itself."""
        spans = [Span(k, k, k + 1, k, k + 1, *images.shape[2:]) for k in range(len(images))]
        return self.chunks.embed(
            self.backbone, spans, lambda chunk: self._laid_out(images[chunk[0].first : chunk[-1].stop])
        )

    def _seen(
        self, hu: Tensor, spans: list[Span], *, boxes: Tensor, warp: Tensor | None, appearance: Appearance | None
    ) -> Tensor:
        return self._laid_out(self.network_input(hu, spans, boxes, warp, appearance))

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.config.channels_last else images

    def crop_boxes(self, hu: Tensor, lengths: Tensor, *, sizes: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """(P, 4) float: centre x, centre y, half width, half height of the head in pixels, one box a series.

        The box holds every row and column in which some slice has body; the whole image where there is none. With
        crop "slice", (S, 4): a box for each slice. Neighbours that come with a slice do not count.
        """
        return self.network_input.crop_boxes(hu, lengths, sizes)

    # ---- how it runs -------------------------------------------------------------------------------------------------

    def activation_bytes(self) -> int:
        """Bytes that the backbone keeps for the backward pass of one slice, measured once."""
        return self.chunks.activation_bytes(self.backbone)

    def use_channels_last(self, on: bool) -> None:
        """Choose the memory format of the backbone; the results differ by rounding alone."""
        self.config = dataclasses.replace(self.config, channels_last=on)
        self.backbone.to(memory_format=torch.channels_last if on else torch.contiguous_format)

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Fix the backbone: no gradient, and evaluation mode whatever the model's mode."""
        self._frozen_backbone = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module.train, but a frozen backbone and frozen batch norm stay in evaluation mode."""
        super().train(mode)
        if mode:
            self.weights_sha256 = None
        if self._frozen_backbone:
            self.backbone.eval()
        elif self.config.freeze_bn:
            for norm in batch_norms(self.backbone):
                norm.eval()
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As nn.Module.load_state_dict; the weights are then no longer those of a file that is known."""
        self.weights_sha256 = None
        return super().load_state_dict(*args, **kwargs)

    def live_batch_norms(self) -> list[_BatchNorm]:
        """Batch norms of the backbone whose running statistics move in training."""
        if self._frozen_backbone or self.config.freeze_bn:
            return []
        return [norm for norm in batch_norms(self.backbone) if norm.track_running_stats]

    def running_statistics(self) -> list[Tensor]:
        """A copy of what training moves in the live batch norms; `restore_statistics` puts it back."""
        return copied_statistics(self.live_batch_norms())

    def restore_statistics(self, kept: Sequence[Tensor]) -> None:
        """Take back what the live batch norms have seen since `running_statistics`."""
        put_back(self.live_batch_norms(), kept)

    # ---- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write weights.safetensors and model.json into a folder, each beside and then renamed into place.

        Raises:
            RunError: the file system refuses; what was there before is as it was.
        """
        shares = (self.sequence_share, self.exam_share)
        description = Description(dataclasses.asdict(self.config), self.trained_on, *shares)
        write_model(Path(folder), description, self.state_dict())

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "auto") -> Self:
        """The model of a folder written by `save`, such as runs/NAME/joint/fold0, in evaluation mode.

        Args:
            path: the folder, or one of its two files; or the name of a network: one that ships, such as "phantom-1"
                (unless there is a folder of that name), or one on the Hugging Face hub, hf-hub:owner/name@revision.
            device: where it goes; auto: a GPU if there is one.

        Raises:
            RunError: no model there, a damaged one, one of a newer version, or one that can't be fetched.
            ConfigError: a GPU is asked for, and there is none.
        """
        path, device = Path(path), choose_device(device)
        folder = path.parent if path.name in (WEIGHTS, DESCRIPTION) else network_folder(path) or path
        with damage_explained(folder):
            saved, weights = read_model(folder)
            refuse_larger(saved.config, numbers_in(folder))
            model = cls(**saved.config)
            model.trained_on = saved.trained_on
            model.sequence_share, model.exam_share = saved.sequence_share, saved.exam_share
            refuse_other_tensors(model.state_dict(), weights)
            model.load_state_dict(weights)
            model.weights_sha256 = saved.weights
        return model.to(device).eval()
