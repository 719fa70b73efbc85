"""The network: Hounsfield units in, six logits a slice out.

    hu (S, H, W) -> crop, warp, resize, windows (S, C, size, size) -> timm backbone (S, D) -> LSTM a series (S, 6)

S is the number of slices of all series of a batch, stacked in order; no padding ever reaches the backbone. The module
owns geometry, windows and normalisation, so that training, prediction and other code can't disagree on them.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.checkpoint import checkpoint

from ichseq.backbone import feature_count, free_bytes, make_backbone
from ichseq.config import ModelConfig
from ichseq.errors import ConfigError, RunError
from ichseq.labels import CHANNEL_MEAN, CHANNEL_STD, DEFAULT_WINDOWS, HU_RANGE, LABELS, WINDOWS

FORMAT = 1
_BODY_HU = -100  # above it: head, table and head rest; below: air and noise in air
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)  # timm's BatchNormAct2d is one as well

Span = tuple[int, int, int, int, int]  # series, first slice, last slice + 1, its rows, its columns


class SkipLSTM(nn.Module):
    """Two stacked bidirectional LSTM layers; the head reads both and a non-linear view of each.

    h1 and h2 are the layers' outputs, r = relu(linear(h)) of each; logits = linear(h1 + h2 + r1 + r2). The sequence
    network of the competition's 2nd place ("2X LSTM").
    """

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm1 = nn.LSTM(features, hidden_size, bidirectional=True, batch_first=True)
        self.lstm2 = nn.LSTM(2 * hidden_size, hidden_size, bidirectional=True, batch_first=True)
        self.linear1 = nn.Linear(2 * hidden_size, 2 * hidden_size)
        self.linear2 = nn.Linear(2 * hidden_size, 2 * hidden_size)
        self.head = nn.Linear(2 * hidden_size, len(LABELS))

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Logits (S, 6) of stacked embeddings (S, D); lengths (P,) on the CPU."""
        padded = pad_sequence(list(embeddings.split(lengths.tolist())), batch_first=True)  # (P, longest, D)
        packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        packed1, _ = self.lstm1(packed)
        packed2, _ = self.lstm2(packed1)
        h1, h2 = self._stack(packed1, lengths), self._stack(packed2, lengths)  # (S, 2H)
        return self.head(h1 + h2 + F.relu(self.linear1(h1)) + F.relu(self.linear2(h2)))

    @staticmethod
    def _stack(packed: Any, lengths: Tensor) -> Tensor:
        padded, _ = pad_packed_sequence(packed, batch_first=True)
        return torch.cat([series[:n] for series, n in zip(padded, lengths.tolist(), strict=True)])


class Model(nn.Module):
    """One network over whole series: a timm backbone reads every slice, an LSTM reads the slices in order.

    Args:
        backbone: any timm model by name.
        pretrained: True fetches timm's weights, False starts from random ones, a path loads a local file
            (.safetensors, or a .pth/.pt/.bin that holds nothing but tensors).
        image_size: side in pixels of what the backbone sees.
        windows: names of `ichseq.labels.WINDOWS`, an input channel each.
        normalise: subtract the published mean of each window and divide by its standard deviation.
        crop: "series" cuts the air around the head, one box for all slices of a series; "none" keeps the image.
        pool: how the backbone's last feature map becomes one vector: "avg", "max", or both ("catavgmax"; D doubles).
        sequence: "lstm2" (see `SkipLSTM`) or "none" (each slice by itself).
        hidden_size: units of each LSTM direction.
        dropout: on the embedding, in training.
        freeze_bn: keep the backbone's batch-norm statistics fixed in training; "auto": if its weights are trained ones.
        channels_last: memory format of the backbone.
        checkpointing: "on" recomputes the backbone in the backward pass, "auto" when a step would not fit the memory.
        chunk_size: slices that the backbone reads at once. With live batch norm, part of the computation.

    Raises:
        ConfigError: an unknown backbone, window or weights file, or weights that can't be fetched.
    """

    window_low: Tensor
    window_scale: Tensor
    channel_mean: Tensor
    channel_std: Tensor

    def __init__(
        self,
        backbone: str = ModelConfig.backbone,
        *,
        pretrained: bool | str = False,
        image_size: int = 384,
        windows: Sequence[str] = DEFAULT_WINDOWS,
        normalise: bool = True,
        crop: Literal["series", "none"] = "series",
        pool: Literal["avg", "max", "catavgmax"] = "avg",
        sequence: Literal["lstm2", "none"] = "lstm2",
        hidden_size: int = 256,
        dropout: float = 0.0,
        freeze_bn: bool | Literal["auto"] = "auto",
        channels_last: bool = False,
        checkpointing: Literal["auto", "on", "off"] = "auto",
        chunk_size: int = 32,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "backbone": backbone,
            "image_size": image_size,
            "windows": list(windows),
            "normalise": normalise,
            "crop": crop,
            "pool": pool,
            "sequence": sequence,
            "hidden_size": hidden_size,
            "dropout": dropout,
            "freeze_bn": bool(pretrained) if freeze_bn == "auto" else freeze_bn,
            "channels_last": channels_last,
        }
        self.trained_on: dict[str, Any] = {}  # where the weights come from; travels with them
        self.image_size, self.crop = image_size, crop
        self.checkpointing, self.chunk_size = checkpointing, chunk_size
        self.backbone_slices = 0  # slices that the backbone has read since the model was made
        self._frozen_backbone = False
        self._bytes_a_slice: int | None = None
        if crop not in ("series", "none"):
            raise ConfigError(f"model.crop is {crop!r}; choose series or none")
        low, scale, mean, std = _channels(windows, normalise)
        self.register_buffer("window_low", low, persistent=False)
        self.register_buffer("window_scale", scale, persistent=False)
        self.register_buffer("channel_mean", mean, persistent=False)
        self.register_buffer("channel_std", std, persistent=False)
        self.backbone = make_backbone(backbone, pretrained, len(windows), image_size, pool)
        if channels_last:
            self.backbone = self.backbone.to(memory_format=torch.channels_last)
        self.features = feature_count(self.backbone, len(windows), image_size)
        self.drop = nn.Dropout(dropout)
        self.slice_head = nn.Linear(self.features, len(LABELS))
        if sequence not in ("lstm2", "none"):
            raise ConfigError(f"model.sequence is {sequence!r}; choose lstm2 or none")
        self.sequence = SkipLSTM(self.features, hidden_size) if sequence == "lstm2" else None

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
        return_aux: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of every slice; a series' logits do not depend on what else is in the batch.

        Args:
            hu: (S, H, W) Hounsfield units, integers or floats, slices of all series stacked in order. May stay on the
                CPU: each chunk is moved to the model's device when its turn comes.
            lengths: (P,) slices of each series, on the CPU; their sum is S.
            warp: (P, 3, 3) augmentation, from output to input coordinates, both -1..1 over the cropped square.
            sizes: true (rows, columns) of each series where a batch of mixed sizes was padded; default all (H, W).
            boxes: (P, 4) crop boxes from `crop_boxes`, where a batch does not hold whole series.
            return_aux: also return the slice head's logits.

        Returns:
            logits (S, 6) in the order of `ichseq.labels.LABELS`; with return_aux, the pair (logits, slice logits).
        """
        embeddings = self.embed(hu, lengths, warp=warp, sizes=sizes, boxes=boxes)
        aux = self.slice_logits(embeddings)
        logits = self.sequence_logits(embeddings, lengths) if self.sequence is not None else aux
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
        """Pooled embedding of every slice, (S, D); arguments as in `forward`."""
        series = _series_spans(hu, lengths, sizes)
        if boxes is None:
            boxes = self.crop_boxes(hu, lengths, sizes=sizes)
        boxes = boxes.to(self.device)
        recompute = self._recompute(len(hu))
        parts = []
        for spans in _chunks(series, len(hu), self.chunk_size):
            self.backbone_slices += spans[-1][2] - spans[0][1]
            if recompute:
                context: Callable[[], Any] = lambda: (nullcontext(), self._still_statistics())  # noqa: E731
                parts.append(
                    checkpoint(self._embed_chunk, hu, spans, boxes, warp, use_reentrant=False, context_fn=context)
                )
            else:
                parts.append(self._embed_chunk(hu, spans, boxes, warp))
        return torch.cat(parts)

    def slice_logits(self, embeddings: Tensor) -> Tensor:
        """Logits (S, 6) of each slice by itself."""
        return self.slice_head(self.drop(embeddings))

    def sequence_logits(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Logits (S, 6) of the slices in their order; embeddings (S, D), lengths (P,) on the CPU."""
        if self.sequence is None:
            return self.slice_logits(embeddings)
        return self.sequence(self.drop(embeddings), lengths)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.slice_head.weight.device

    @torch.no_grad()
    def crop_boxes(self, hu: Tensor, lengths: Tensor, *, sizes: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """(P, 4) float: centre x, centre y, half width, half height of the head in pixels, one box a series.

        The box holds every row and column in which some slice has body; the whole image where there is none.
        """
        boxes = []
        for _, first, stop, rows, columns in _series_spans(hu, lengths, sizes):
            inside_rows = torch.zeros(rows, dtype=torch.bool, device=hu.device)
            inside_columns = torch.zeros(columns, dtype=torch.bool, device=hu.device)
            if self.crop == "series":
                for start in range(first, stop, self.chunk_size):
                    body = hu[start : min(stop, start + self.chunk_size), :rows, :columns] > _BODY_HU
                    body = body.any(0)
                    inside_rows |= body.any(1)
                    inside_columns |= body.any(0)
            (top, bottom), (left, right) = _extent(inside_rows), _extent(inside_columns)
            boxes.append(torch.stack([left + right, top + bottom, right - left, bottom - top]) / 2)
        return torch.stack(boxes)

    def network_input(self, hu: Tensor, spans: Sequence[Span], boxes: Tensor, warp: Tensor | None) -> Tensor:
        """What the backbone sees of the slices of `spans`: (n, C, size, size), windowed and normalised."""
        same_size = (list(group) for _, group in groupby(spans, key=lambda span: span[3:]))
        squares = [self._squares(hu, group, boxes, warp) for group in same_size]
        values = torch.cat(squares) + HU_RANGE[0]  # (n, 1, size, size) HU
        values = ((values - self.window_low) * self.window_scale).clamp(0, 1)
        return (values - self.channel_mean) / self.channel_std

    def _squares(self, hu: Tensor, spans: Sequence[Span], boxes: Tensor, warp: Tensor | None) -> Tensor:
        """Neighbouring series of one size, cropped, warped and resized: (n, 1, size, size), HU above the range's end.

        0 is the range's lower end, so what lies outside the image is air.
        """
        low, high = HU_RANGE
        rows, columns = spans[0][3:]
        slices = hu[spans[0][1] : spans[-1][2], :rows, :columns].to(self.device).float().clamp(low, high) - low
        # Halving (or more) by means before sampling keeps fine noise from aliasing into small images.
        factor = max(1, int(0.7 * max(rows, columns) / self.image_size))
        if factor > 1:
            slices = F.pad(slices, (0, -columns % factor, 0, -rows % factor))
            slices = F.avg_pool2d(slices[:, None], factor)[:, 0]
        series = slice(spans[0][0], spans[-1][0] + 1)
        centre_x, centre_y = boxes[series, 0], boxes[series, 1]
        half = boxes[series, 2:].amax(1)
        if warp is None:
            matrix = torch.eye(2, 3, device=boxes.device).expand(len(spans), 2, 3)
        else:
            matrix = warp[series, :2].to(boxes)
        # output square (-1..1) -> cropped square (-1..1) -> pixels -> -1..1 over the image
        per_x, per_y = 2 / (slices.shape[-1] * factor), 2 / (slices.shape[-2] * factor)
        scale = torch.stack([half * per_x, half * per_y], dim=1)[:, :, None]
        shift = torch.stack([centre_x * per_x - 1, centre_y * per_y - 1], dim=1)[:, :, None]
        matrix = torch.cat([matrix[:, :, :2] * scale, matrix[:, :, 2:] * scale + shift], dim=2)
        grids = F.affine_grid(matrix, [len(spans), 1, self.image_size, self.image_size], align_corners=False)
        counts = [stop - first for _, first, stop, _, _ in spans]
        if max(counts) == 1:
            return F.grid_sample(slices[:, None], grids, padding_mode="zeros", align_corners=False)
        # The slices of a series share a grid: as channels of one image they are sampled at once.
        parts = zip(slices.split(counts), grids.split(1), strict=True)
        sampled = [
            F.grid_sample(part[None], grid, padding_mode="zeros", align_corners=False)[0] for part, grid in parts
        ]
        return torch.cat(sampled)[:, None]

    def _embed_chunk(self, hu: Tensor, spans: Sequence[Span], boxes: Tensor, warp: Tensor | None) -> Tensor:
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            images = self.network_input(hu, spans, boxes, warp)
        if self.settings["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.backbone(images).float()

    # ---- batch norm, memory ----------------------------------------------------------------------------------------

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Fix the backbone: no gradient, and evaluation mode whatever the model's mode."""
        self._frozen_backbone = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Model":
        """As nn.Module.train, but a frozen backbone and frozen batch norm stay in evaluation mode."""
        super().train(mode)
        if self._frozen_backbone:
            self.backbone.eval()
        elif self.settings["freeze_bn"]:
            for module in self._batch_norms():
                module.eval()
        return self

    def _batch_norms(self) -> list[nn.Module]:
        return [module for module in self.backbone.modules() if isinstance(module, _BATCH_NORMS)]

    @contextmanager
    def _still_statistics(self) -> Iterator[None]:
        """While a chunk is recomputed: batch norm normalises as in the forward pass but moves no running statistic."""
        norms: list[Any] = [m for m in self._batch_norms() if m.training and m.track_running_stats]
        kept = [(m.momentum, m.num_batches_tracked) for m in norms]
        for m in norms:
            m.momentum = 0.0
            m.num_batches_tracked = m.num_batches_tracked.clone()
        try:
            yield
        finally:
            for m, (momentum, count) in zip(norms, kept, strict=True):
                m.momentum, m.num_batches_tracked = momentum, count

    def _recompute(self, slices: int) -> bool:
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.backbone.parameters())
        if not trains or self.checkpointing == "off":
            return False
        if self.checkpointing == "on":
            return True
        return slices * self.activation_bytes() > 0.8 * free_bytes(self.device)

    def activation_bytes(self) -> int:
        """Bytes that the backbone keeps for the backward pass of one slice, measured once by a pass over one slice."""
        if self._bytes_a_slice is None:
            seen: dict[int, int] = {}

            def note(tensor: Tensor) -> Tensor:
                if not isinstance(tensor, nn.Parameter):
                    seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            modes = [(module, module.training) for module in self.backbone.modules()]
            self.backbone.eval()  # leaves the running statistics alone
            shape = (1, len(self.settings["windows"]), self.image_size, self.image_size)
            with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
                kept = self.backbone(torch.zeros(shape, device=self.device))
            del kept
            for module, mode in modes:
                module.training = mode
            self._bytes_a_slice = sum(seen.values())
        return self._bytes_a_slice

    # ---- files -----------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write weights.safetensors and model.json into a folder, each beside and then renamed into place."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        description = {"format": FORMAT, "settings": self.settings, "trained_on": self.trained_on}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / "weights.safetensors.part")
        (folder / "model.json.part").write_text(json.dumps(description, indent=2), encoding="utf-8")
        for name in ("weights.safetensors", "model.json"):
            os.replace(folder / f"{name}.part", folder / name)

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


def _channels(windows: Sequence[str], normalise: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower end, 1 / width, mean and standard deviation of each channel, (1, C, 1, 1) each."""
    if not windows:
        raise ConfigError("model.windows is empty; name at least one of " + ", ".join(WINDOWS))
    for name in windows:
        if name not in WINDOWS:
            raise ConfigError(f"model.windows: no window {name!r}; there are {', '.join(WINDOWS)}")
        centre, width = WINDOWS[name]
        if centre - width / 2 < HU_RANGE[0] or centre + width / 2 > HU_RANGE[1]:
            raise ConfigError(f"model.windows: {name} reaches beyond the stored range {HU_RANGE} HU")
    low = [WINDOWS[name][0] - WINDOWS[name][1] / 2 for name in windows]
    scale = [1 / WINDOWS[name][1] for name in windows]
    mean = [CHANNEL_MEAN[name] if normalise else 0.0 for name in windows]
    std = [CHANNEL_STD[name] if normalise else 1.0 for name in windows]
    shape = (1, len(windows), 1, 1)
    return tuple(torch.tensor(values).view(shape) for values in (low, scale, mean, std))  # type: ignore[return-value]


def _extent(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First and last + 1 true place of a bool vector; the whole vector where none is true. No wait for the device."""
    last = len(inside) - inside.flip(0).int().argmax()
    return inside.int().argmax().float(), last.float()


def _series_spans(hu: Tensor, lengths: Tensor, sizes: Sequence[tuple[int, int]] | None) -> list[Span]:
    if hu.ndim != 3:
        raise ValueError(f"hu has shape {tuple(hu.shape)}; it has to be (slices, rows, columns)")
    if lengths.ndim != 1 or int(lengths.sum()) != len(hu) or int(lengths.min()) < 1:
        raise ValueError(f"lengths {lengths.tolist()} do not add up to the {len(hu)} slices of hu")
    if sizes is None:
        sizes = [(hu.shape[1], hu.shape[2])] * len(lengths)
    stops = lengths.cumsum(0).tolist()
    return [(i, stop - n, stop, *sizes[i]) for i, (n, stop) in enumerate(zip(lengths.tolist(), stops, strict=True))]


def _chunks(series: list[Span], slices: int, chunk_size: int) -> Iterator[list[Span]]:
    """The same slices in chunks of about equal size, at most chunk_size; a chunk may hold parts of several series."""
    count = -(-slices // chunk_size)
    for k in range(count):
        low, high = k * slices // count, (k + 1) * slices // count
        yield [(i, max(a, low), min(b, high), h, w) for i, a, b, h, w in series if a < high and b > low]
