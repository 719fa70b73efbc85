"""Heat maps: where in a slice the evidence for a label lies, in the pixels of the DICOM files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ichseq.ct.series import Series
from ichseq.errors import ConfigError, ScanError
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.labels import LABELS
from ichseq.model.evidence import FINE_STRIDES, heat_of_slices, to_pixels

Depth = Literal["fine", "last"]
DEPTHS: Final[dict[str, tuple[int, ...]]] = {"fine": FINE_STRIDES, "last": ()}
"""Which maps are shown, by their strides."""

_AT_ONCE: Final = 8  # slices whose maps are computed together


class HeatMap(NamedTuple):
    """Of one slice.

    Attributes:
        label: whose evidence it shows.
        slice: number in the series.
        values: float32 (rows, columns), 0 or more, in units of the logit.
    """

    label: str
    slice: int
    values: np.ndarray


def ensemble_heatmaps(
    ensemble: ModelEnsemble, series: Series, wanted: Mapping[str, Sequence[int]], *, depth: Depth = "fine"
) -> dict[str, np.ndarray]:
    """Heat maps of several labels, each of the slices that it is wanted for; see `ichseq.heatmap`.

    Args:
        ensemble: the models.
        series: the scan.
        wanted: for each label the numbers of slices in the series.
        depth: as for `ichseq.heatmap`.

    Returns:
        For each label float32 (its slices, rows, columns), in their order.

    Raises:
        ConfigError, ScanError: as `heatmaps_in_turn`.
    """
    rows, columns = series.shape[1:]
    found = {label: np.zeros((len(numbers), rows, columns), np.float32) for label, numbers in wanted.items()}
    for one in heatmaps_in_turn(ensemble, series, wanted, depth=depth):
        for place, number in enumerate(wanted[one.label]):
            if number % len(series) == one.slice:
                found[one.label][place] = one.values
    return found


def heatmaps_in_turn(
    ensemble: ModelEnsemble, series: Series, wanted: Mapping[str, Sequence[int]], *, depth: Depth = "fine"
) -> Iterator[HeatMap]:
    """The same, one after the other from feet to head: no more than a few are in memory, however long the series.

    Args:
        ensemble: the models.
        series: the scan.
        wanted: for each label the numbers of slices in the series; a slice that is named twice comes once.
        depth: as for `ichseq.heatmap`.

    Raises:
        ConfigError: no such label, slice or depth, or a backbone without maps.
        ScanError: a slice can't be read.
    """
    if depth not in DEPTHS:
        raise ConfigError(f"depth {depth!r} is unknown; use {' or '.join(DEPTHS)}")
    pairs = _pairs(wanted, len(series))
    if not pairs:
        return
    ensemble.check_heatmaps()
    boxes, whole = _boxes(ensemble, series)
    positions = torch.tensor(whole.positions_mm, dtype=torch.float32, device=ensemble.device)
    embeddings = ensemble.embed_series(whole, boxes)
    gradients = ensemble.own_gradients(embeddings, positions, pairs)
    del embeddings
    numbers = sorted({number for number, _ in pairs})
    for start in range(0, len(numbers), _AT_ONCE):
        part = numbers[start : start + _AT_ONCE]
        rows = [k for k, (number, _) in enumerate(pairs) if part[0] <= number <= part[-1]]
        asked = _Asked(part, [pairs[k] for k in rows], [one[rows] for one in gradients], DEPTHS[depth])
        for (number, label), values in zip(asked.pairs, _of_part(ensemble, whole, boxes, asked), strict=True):
            yield HeatMap(LABELS[label], number, values)


def _pairs(wanted: Mapping[str, Sequence[int]], count: int) -> list[tuple[int, int]]:
    """Slice and number of the label of all that is wanted, in the order of the slices."""
    for label, numbers in wanted.items():
        if label not in LABELS:
            raise ConfigError(f"label {label!r} is unknown; use one of {', '.join(LABELS)}")
        for number in numbers:
            if not -count <= number < count:
                raise ConfigError(f"slice {number}: the series has {count} slices, from 0 to {count - 1}")
    return sorted({(int(n) % count, LABELS.index(label)) for label, numbers in wanted.items() for n in numbers})


def _boxes(ensemble: ModelEnsemble, series: Series) -> tuple[list[Tensor | None], Series]:
    """Crop boxes for each backbone, and the series with its pixels in memory unless it is long."""
    bodies = ensemble.empty_bodies(series.shape[1:])
    whole, unread = series.readable(lambda hu: ensemble.add_body(bodies, hu))
    if whole is None or unread:
        raise ScanError(unread[0].file, f"{unread[0].reason}; series.readable()[0] is the series without such slices")
    return ensemble.crop_boxes(bodies), whole


class _Asked(NamedTuple):
    """Slices in their order, what is wanted of them as (slice, label), the gradients (K, D), and the maps' strides."""

    numbers: list[int]
    pairs: list[tuple[int, int]]
    gradients: list[Tensor]
    strides: Sequence[int]


def _of_part(
    ensemble: ModelEnsemble, series: Series, boxes: Sequence[Tensor | None], asked: _Asked
) -> list[np.ndarray]:
    """The heat map of each of the pairs: the sum over backbones and views, whose gradients are parts of the mean's."""
    labels = sorted({label for _, label in asked.pairs})
    total: Tensor | None = None
    for place, model in enumerate(ensemble.embedders):
        stack = _Stack.read(series, asked.numbers, model.reach)
        box = boxes[place]
        of_stack = model.crop_boxes(stack.hu, stack.lengths) if box is None else box.expand(len(stack.lengths), 4)
        of_slices = of_stack if box is None else box.expand(len(stack.hu), 4)
        chosen = [(stack.rows[number], labels.index(label)) for number, label in asked.pairs]
        slices, which = (torch.tensor(one, device=model.device) for one in zip(*chosen, strict=True))
        for view, warp in enumerate(ensemble.warps):
            own = asked.gradients[place * len(ensemble.warps) + view]
            gradients = own.new_zeros(len(labels), len(stack.hu), own.shape[1])
            gradients[which, slices] = own
            heat = heat_of_slices(model, stack.hu, stack.lengths, of_stack, gradients, warp=warp, strides=asked.strides)
            found = heat[which, slices]
            mapped = to_pixels(found, of_slices.to(found)[slices], series.shape[1:])
            total = mapped if total is None else total + mapped
    assert total is not None
    return list(total.clamp_(min=0).cpu().numpy())


class _Stack(NamedTuple):
    """Slices with the neighbours that an embedding depends on, stacked.

    Attributes:
        hu: int16 (S, rows, columns).
        lengths: slices of each piece of the series that is there.
        rows: where in the stack each slice lies that was asked for, by its number.
    """

    hu: Tensor
    lengths: Tensor
    rows: dict[int, int]

    @classmethod
    def read(cls, series: Series, numbers: Sequence[int], reach: int) -> "_Stack":
        """Read some slices of a series; numbers ascend."""
        pieces: list[tuple[int, int]] = []
        for number in numbers:
            first, stop = max(0, number - reach), min(len(series), number + reach + 1)
            if pieces and first <= pieces[-1][1]:
                pieces[-1] = (pieces[-1][0], stop)
            else:
                pieces.append((first, stop))
        places = [number for first, stop in pieces for number in range(first, stop)]
        hu = torch.from_numpy(np.concatenate([series.read(first, stop) for first, stop in pieces]))
        return cls(hu, torch.tensor([b - a for a, b in pieces]), {number: k for k, number in enumerate(places)})
