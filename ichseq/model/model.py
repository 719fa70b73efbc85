"""The network: Hounsfield units in, six logits a slice out.

    hu (S, H, W) -> crop, warp, resize, windows (S, C, size, size) -> timm backbone (S, D) -> sequence part (S, 6)

S is the number of slices of all series of a batch, stacked in order; no padding ever reaches the backbone. The module
owns geometry, windows and normalisation, so that training, prediction and other code can't disagree on them.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ichseq.config import ModelConfig
from ichseq.errors import RunError
from ichseq.files import flush
from ichseq.geometry import VIEWS, check_views
from ichseq.labels import LABELS
from ichseq.model.backbone import feature_count, make_backbone
from ichseq.model.chunks import ChunkedBackbone
from ichseq.model.cross_slice import add_cross_slice
from ichseq.model.input import NetworkInput, Span, series_spans
from ichseq.model.sequence.inputs import drop_channels, with_inputs
from ichseq.model.sequence.parts import make_sequence
from ichseq.windows import DEFAULT_WINDOWS

FORMAT = 1


class Model(ChunkedBackbone):
    """One network over whole series: a timm backbone reads every slice, a sequence part reads the slices in order.

    Args:
        backbone: any timm model by name.
        pretrained: True fetches timm's weights, False starts from random ones, a path loads a local file
            (.safetensors, or a .pth/.pt/.bin that holds nothing but tensors).
        image_size: side in pixels of what the backbone sees.
        windows: names of `ichseq.windows.WINDOWS`, an input channel each.
        neighbours: slices on each side that the backbone reads with a slice, each in every window, as further input
            channels in the order of the slices; beyond the ends of a series its last slice is repeated.
        normalise: subtract the published mean of each window and divide by its standard deviation.
        crop: "series" cuts the air around the head, one box for all slices of a series; "slice" cuts each slice by
            itself, as the published pipeline did; "none" keeps the image.
        window_first: window before the resampling, as the published pipeline did.
        views: names of `ichseq.geometry.VIEWS`; outside training, and for the embeddings that the frozen stage
            keeps, a slice's embedding is the mean over the slice as it is and these views of it.
        pool: how the backbone's last feature map becomes one vector: "avg", "max", or both ("catavgmax"; D doubles).
        cross_slice: strides of the backbone's feature maps, such as 4, 8, 16, after which a convolution across three
            slices runs, see `ichseq.model.cross_slice`.
        sequence: a name of `ichseq.model.sequence.parts.PARTS`, or "none" (each slice by itself).
        hidden_size: units of each direction of an LSTM or GRU; width of the other parts.
        sequence_inputs: names of `ichseq.model.sequence.inputs.INPUTS`, appended to what the sequence part reads.
        dropout: on the embedding, in training.
        channel_dropout: share of embedding channels that the sequence part misses, in training; drawn for each series.
        freeze_bn: keep the backbone's batch-norm statistics fixed in training; "auto": if its weights are trained ones.
        channels_last: memory format of the backbone; "auto" is false here, and for training the faster one.
        checkpointing: "on" recomputes the backbone in the backward pass, "auto" when a step would not fit the memory.
        chunk_size: slices that the backbone reads at once. With live batch norm, part of the computation.

    Raises:
        ConfigError: an unknown backbone, window, sequence part or weights file, or weights that can't be fetched.

    Example:
        >>> import ichseq
        >>> model = ichseq.Model.load("runs/first/joint/fold0")
        >>> model.trained_on["stage"]
        'joint'
    """

    def __init__(
        self,
        backbone: str = ModelConfig.backbone,
        *,
        pretrained: bool | str = False,
        image_size: int = 384,
        windows: Sequence[str] = DEFAULT_WINDOWS,
        neighbours: int = 0,
        normalise: bool = True,
        crop: Literal["series", "slice", "none"] = "series",
        window_first: bool = False,
        views: Sequence[str] = (),
        pool: Literal["avg", "max", "catavgmax"] = "avg",
        cross_slice: Sequence[int] = (),
        sequence: str = "lstm2",
        hidden_size: int = 256,
        sequence_inputs: Sequence[str] = (),
        dropout: float = 0.0,
        channel_dropout: float = 0.0,
        freeze_bn: bool | Literal["auto"] = "auto",
        channels_last: bool | Literal["auto"] = False,
        checkpointing: Literal["auto", "on", "off"] = "auto",
        chunk_size: int = 32,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "backbone": backbone,
            "image_size": image_size,
            "windows": list(windows),
            "neighbours": neighbours,
            "normalise": normalise,
            "crop": crop,
            "window_first": window_first,
            "views": list(views),
            "pool": pool,
            "cross_slice": list(cross_slice),
            "sequence": sequence,
            "hidden_size": hidden_size,
            "sequence_inputs": list(sequence_inputs),
            "dropout": dropout,
            "channel_dropout": channel_dropout,
            "freeze_bn": bool(pretrained) if freeze_bn == "auto" else freeze_bn,
            "channels_last": channels_last is True,
        }
        self.trained_on: dict[str, Any] = {}  # where the weights come from; travels with them
        check_views(views, "model.views")
        self.start_chunks(checkpointing, chunk_size)
        self.network_input = NetworkInput(windows, normalise, crop, image_size, window_first, neighbours)
        self.backbone = make_backbone(backbone, pretrained, len(windows), image_size, pool, neighbours)
        self.use_channels_last(self.settings["channels_last"])
        look = partial(feature_count, self.backbone, self.input_channels, image_size)
        self.features = look()
        if cross_slice:
            add_cross_slice(self.backbone, cross_slice, look, backbone)
        self.drop = nn.Dropout(dropout)
        self.slice_head = nn.Linear(self.features, len(LABELS))
        self.sequence = make_sequence(sequence, self.features, hidden_size, sequence_inputs)

    @torch.no_grad()
    def start_at(self, prevalence: Sequence[float | None]) -> None:
        """Set the heads' biases so that fresh ones begin near the answer that knows only how frequent each label is.

        Without it the first hundreds of steps go into learning that most slices are negative.

        Args:
            prevalence: share of positive slices in the order of `ichseq.labels.LABELS`; None leaves a label at 0.5.
        """
        answer = torch.tensor([0.5 if p is None else p for p in prevalence]).clamp(1e-4, 1 - 1e-4)
        heads = [self.slice_head] if self.sequence is None else [self.slice_head, self.sequence.head]
        for head in heads:
            head.bias.copy_(torch.logit(answer))

    # ---- the way through -------------------------------------------------------------------------------------------

    def forward(
        self,
        hu: Tensor,
        lengths: Tensor,
        *,
        warp: Tensor | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        boxes: Tensor | None = None,
        positions_mm: Tensor | None = None,
        return_aux: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
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
            positions_mm: (S,) places of the slices along the scan's axis, see `sequence_logits`.
            return_aux: also return the slice head's logits.

        Returns:
            logits (S, 6) in the order of `ichseq.labels.LABELS`; with return_aux, the pair (logits, slice logits).

        Raises:
            ValueError: the sequence part needs positions and gets None.
        """
        embeddings = self.embed(hu, lengths, warp=warp, sizes=sizes, boxes=boxes)
        aux = self.slice_logits(embeddings)
        logits = self.sequence_logits(embeddings, lengths, positions_mm) if self.sequence is not None else aux
        return (logits, aux) if return_aux else logits

    def embed(
        self,
        hu: Tensor,
        lengths: Tensor,
        *,
        warp: Tensor | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        boxes: Tensor | None = None,
    ) -> Tensor:
        """Pooled embedding of every slice, (S, D), out of training the mean over `views`; arguments as in `forward`."""
        series, boxes, warp, borders = self._placed(hu, lengths, sizes, boxes, warp)
        found = self.embed_chunks(series, lambda spans: self.network_input(hu, spans, boxes, warp, borders), borders)
        views = () if self.training else self.settings["views"]
        for name in views:
            seen = VIEWS[name].expand(len(boxes), 3, 3)
            seen = seen if warp is None else warp.cpu() @ seen
            read = partial(self.network_input, hu, boxes=boxes, warp=seen, borders=borders)
            found = found + self.embed_chunks(series, read, borders)
        return found / (1 + len(views)) if views else found

    def images(
        self,
        hu: Tensor,
        lengths: Tensor,
        *,
        warp: Tensor | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        boxes: Tensor | None = None,
    ) -> Tensor:
        """What the backbone sees of every slice, (S, C, size, size), all at once; arguments as in `forward`."""
        series, boxes, warp, borders = self._placed(hu, lengths, sizes, boxes, warp)
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            return self.network_input(hu, series, boxes, warp, borders)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pooled embedding (S, D) of `images`, or of what became of them, each by itself."""
        alone = [(k, k, k + 1, 0, 0) for k in range(len(images))]
        return self.embed_chunks(alone, lambda spans: images[spans[0][1] : spans[-1][2]])

    def _placed(
        self,
        hu: Tensor,
        lengths: Tensor,
        sizes: Sequence[tuple[int, int]] | None,
        boxes: Tensor | None,
        warp: Tensor | None,
    ) -> tuple[list[Span], Tensor, Tensor | None, list[tuple[int, int]]]:
        """Spans of the series, with a crop box and perhaps a warp for each, and the borders of its series."""
        if hu.ndim == 4 and hu.shape[1] != 1 + 2 * self.settings["neighbours"]:
            raise ValueError(f"hu has {hu.shape[1]} slices seen together; model.neighbours is "
                             f"{self.settings['neighbours']}")  # fmt: skip
        series = series_spans(hu, lengths, sizes)
        borders = [(first, stop) for _, first, stop, _, _ in series]
        if boxes is None:
            boxes = self.crop_boxes(hu, lengths, sizes=sizes)
        if len(boxes) > len(series) or (warp is not None and len(warp) > len(series)):
            # One box or warp for each slice: each is then a series of its own.
            boxes = _a_slice(boxes, series, len(hu))
            warp = None if warp is None else _a_slice(warp, series, len(hu))
            series = [(k, k, k + 1, h, w) for _, first, stop, h, w in series for k in range(first, stop)]
            borders = [border for border in borders for _ in range(*border)]
        return series, boxes.to(self.device), warp, borders

    def slice_logits(self, embeddings: Tensor) -> Tensor:
        """Logits (S, 6) of each slice by itself."""
        return self.slice_head(self.drop(embeddings))

    def sequence_logits(self, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None = None) -> Tensor:
        """Logits (S, 6) of the slices in their order; embeddings (S, D), lengths (P,) on the CPU.

        Args:
            embeddings: from `embed`.
            lengths: slices of each series.
            positions_mm: (S,) places along the scan's axis; a series where one is NaN counts 5 mm a slice.

        Raises:
            ValueError: the sequence part, or one of its inputs, needs positions and gets None.
        """
        if self.sequence is None:
            return self.slice_logits(embeddings)
        if positions_mm is not None:
            positions_mm = positions_mm.to(embeddings.device, torch.float32)
        # In full precision: autocast makes a GPU's LSTM half precision even where bf16 is asked for, and in bf16 no
        # scaler keeps its gradients from vanishing. It is a small part of a step.
        with torch.autocast(self.device.type, enabled=False):
            read = self._sequence_input(embeddings.float(), lengths, positions_mm)
            return self.sequence(read, lengths, positions_mm)

    def _sequence_input(self, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None) -> Tensor:
        read, counts, share = self.drop(embeddings), lengths.tolist(), self.settings["channel_dropout"]
        if self.training and share > 0:
            read = drop_channels(read, counts, share)
        if self.sequence is not None and self.sequence.reads_logits:
            read = self.slice_head(read)
        return with_inputs(read, counts, positions_mm, self.settings["sequence_inputs"])

    def crop_boxes(self, hu: Tensor, lengths: Tensor, *, sizes: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """(P, 4) float: centre x, centre y, half width, half height of the head in pixels, one box a series.

        The box holds every row and column in which some slice has body; the whole image where there is none. With
        crop "slice", (S, 4): a box for each slice. Neighbours that come with a slice do not count.
        """
        hu = hu[:, hu.shape[1] // 2] if hu.ndim == 4 else hu
        spans = series_spans(hu, lengths, sizes)
        if self.network_input.crop == "slice":
            true = torch.tensor([(h, w) for _, first, stop, h, w in spans for _ in range(first, stop)])
            return self.network_input.slice_boxes(hu, true)
        bodies = [
            self.network_input.body_of(hu[first:stop, :rows, :columns]) for _, first, stop, rows, columns in spans
        ]
        return torch.stack([self.network_input.box_of(body) for body in bodies])

    # ---- files -----------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write weights.safetensors and model.json into a folder, each beside and then renamed into place.

        Raises:
            RunError: the file system refuses; what was there before is as it was.
        """
        folder = Path(folder)
        description = {"format": FORMAT, "settings": self.settings, "trained_on": self.trained_on}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        names = ("weights.safetensors", "model.json")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / "weights.safetensors.part")
            (folder / "model.json.part").write_text(json.dumps(description, indent=2), encoding="utf-8")
            for name in names:
                flush(folder / f"{name}.part")
                os.replace(folder / f"{name}.part", folder / name)
            flush(folder)
        except (OSError, safetensors.SafetensorError) as error:
            for name in names:
                with suppress(OSError):
                    (folder / f"{name}.part").unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error)
            raise RunError(f"{folder}: the weights can't be written ({reason}); make room, or choose another") from None

    @classmethod
    def load(cls, folder: str | Path) -> "Model":
        """The model of a folder written by `save`, such as runs/NAME/joint/fold0; on the CPU, in evaluation mode.

        Raises:
            RunError: no model there, a damaged one, or one of a newer version.
        """
        folder = Path(folder)
        try:
            description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if description["format"] > FORMAT:
                raise RunError(f"{folder}: written by a newer ichseq; update this one (pip install -U ichseq)")
            model = cls(**description["settings"])
            model.trained_on = description["trained_on"]
            model.load_state_dict(load_file(folder / "weights.safetensors"))
        except FileNotFoundError:
            inside = sorted(p.parent for p in folder.glob("*/*/model.json"))
            hint = f"; inside it are {', '.join(map(str, inside))}" if inside else "; train one with `ichseq train`"
            raise RunError(f"{folder}: no model there (model.json and weights.safetensors){hint}") from None
        except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise RunError(f"{folder}: its model is damaged ({type(error).__name__}); train it again") from None
        return model.eval()


def _a_slice(given: Tensor, series: Sequence[Span], slices: int) -> Tensor:
    """What was given for each series, or for each slice already, for each slice."""
    if len(given) == slices:
        return given
    counts = torch.tensor([stop - first for _, first, stop, _, _ in series], device=given.device)
    return given.repeat_interleave(counts, dim=0, output_size=slices)
