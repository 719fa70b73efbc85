"""The two graphs of an exported network: slices to embeddings, and the embeddings of a series to logits."""

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichseq.errors import ConfigError
from ichseq.model import Model
from ichseq.model.centre import LARGE, areas
from ichseq.model.heads import Heads

_VIEWED: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "flip": lambda images: images.flip(-1),
    "transpose": lambda images: images.transpose(-1, -2),
}
"""`ichseq.geometry.VIEWS` of squares that are already cut out."""


class SlicesGraph(nn.Module):
    """Hounsfield units to embeddings, as `Model.embed` makes them without augmentation.

    Resampling along one axis of the image is a matrix, so that no operation depends on the image's size: means over
    squares of pixels, whose side follows from that size, and bilinear sampling between the means; or with crop centre
    means over areas. Sums then come in another order than `Model`'s.

    Raises:
        ConfigError: the network has something that no graph of single slices holds.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if model.config.cross_slice:
            raise ConfigError("model.cross_slice: convolutions across slices can't be exported, since a graph reads "
                              "slices in any order; train a network without them")  # fmt: skip
        self.network_input, self.backbone = model.network_input, model.backbone
        self.views = model.config.views

    def forward(self, hu: Tensor, boxes: Tensor) -> Tensor:
        """Embeddings (n, D).

        Args:
            hu: int16 (n, H, W), or (n, 2 neighbours + 1, H, W), each slice between its neighbours.
            boxes: float32 (n, 4) crop boxes, see `Model.crop_boxes`.
        """
        images = self.images(hu, boxes)
        every = [images, *(_VIEWED[name](images) for name in self.views)]
        return torch.stack([self.backbone(one) for one in every]).mean(0) if self.views else self.backbone(images)

    def images(self, hu: Tensor, boxes: Tensor) -> Tensor:
        """What the backbone sees, (n, C, size, size)."""
        seen, (low, high) = self.network_input, self.network_input.hu_range
        slices = seen.with_ends(hu.float()) if hu.ndim == 4 else hu.float()[:, None]
        centred = seen.config.crop == "centre"
        slices = slices - low if centred else slices.clamp(low, high) - low  # (n, K, H, W)
        if seen.config.window_first and not centred:
            slices = (seen.windowed(slices) - seen.least).flatten(1, 2)
        side, rows, columns = seen.config.image_size, hu.shape[-2], hu.shape[-1]
        factor = _pooled(rows, columns, side)
        half = boxes[:, 2:].amax(1)
        down = _resampling(boxes[:, 1], half, factor, rows, side)  # (n, size, H)
        across = _resampling(boxes[:, 0], half, factor, columns, side)
        if centred:
            whole = _is_resized(rows, columns, side)
            down, across = (torch.where(whole, areas(pixels, side), one)
                            for pixels, one in ((rows, down), (columns, across)))  # fmt: skip
        squares = down[:, None] @ slices @ across[:, None].transpose(2, 3)
        if centred:
            squares = squares.clamp(0, high - low)  # areas are means of values as they are
        elif seen.config.window_first:
            return (squares.unflatten(1, (-1, seen.least.shape[1])) + seen.least).flatten(1, 2)
        return seen.windowed(squares).flatten(1, 2)


def _is_resized(rows: int, columns: int, side: int) -> Tensor:
    """`ichseq.model.centre.is_resized`."""
    return torch.maximum(torch.scalar_tensor(rows), torch.scalar_tensor(columns)) > LARGE * side


def _pooled(rows: int, columns: int, side: int) -> Tensor:
    """The side of the squares of pixels whose mean is taken, as `NetworkInput` has it, in double precision as there."""
    largest = torch.maximum(torch.scalar_tensor(rows, dtype=torch.float64), torch.scalar_tensor(columns).double())
    return (0.7 * largest / side).long().clamp(min=1).float()


def _resampling(centre: Tensor, half: Tensor, factor: Tensor, pixels: int, side: int) -> Tensor:
    """(n, size, pixels): from the pixels along an axis to `side` samples of the crop box."""
    places = (2 * torch.arange(side, device=centre.device) + 1) / side - 1  # -1..1 over the cropped square
    wanted = (places * half[:, None] + centre[:, None]) / factor - 0.5  # among the means
    means = torch.floor(torch.arange(pixels, device=centre.device) / factor)  # in which mean a pixel is
    return F.relu(1 - (wanted[:, :, None] - means).abs()) / factor


class SeriesGraph(nn.Module):
    """The embeddings of one series to its logits, as `Model.answer` makes them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads = _heads_of(model)
        self.by_slice_head = model.trained_on.get("answers_with") == "slice_head"

    def forward(self, embeddings: Tensor, positions_mm: Tensor) -> tuple[Tensor, ...]:
        """Logits (T, 6) of the slices in order, and with an exam head (6,) of the series.

        Args:
            embeddings: (T, D).
            positions_mm: (T,) places along the scan's axis, NaN if unknown.
        """
        if self.by_slice_head:
            return (self.heads.slice_logits(embeddings),)
        output = self.heads.answer_counted(embeddings, [embeddings.shape[0]], positions_mm)
        return (output.logits,) if output.exam_logits is None else (output.logits, output.exam_logits[0])


def answers_exams(model: Model) -> bool:
    """Whether the second graph gives logits of the series."""
    return model.exam is not None and model.trained_on.get("answers_with") != "slice_head"


def _heads_of(model: Model) -> Heads:
    """A copy of what reads the embeddings, without the backbone, whose weights would be exported a second time."""
    heads = Heads()
    heads.config = model.config
    heads.add_heads(model.features)
    heads.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in heads.state_dict()})
    heads.sequence_share, heads.exam_share = model.sequence_share, model.exam_share
    return heads.eval()
