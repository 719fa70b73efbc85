"""heatmap: where in the slices of a series the evidence for a label lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ichseq.api.predict import as_ensemble

if TYPE_CHECKING:
    import numpy as np

    from ichseq.api.predict import Models
    from ichseq.ct.series import Series
    from ichseq.inference.heatmap import Depth


def heatmap(
    model: Models,
    series: Series,
    label: str,
    *,
    slices: Sequence[int] | int | None = None,
    depth: Depth = "fine",
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
) -> np.ndarray:
    """Where in each slice the evidence for a label lies, in the pixels of the DICOM files.

    What the slice itself shows and what speaks for the label, to first order; what the sequence part has from the
    slice's neighbours is not seen, and what speaks against it is left out. A heat map is no outline of a bleed. How
    often its peak lies in one was measured on phantoms: benchmarks/results, heatmap.

    Args:
        model: as for `predict`; of several models the mean of their logits is shown.
        series: from `load_series`.
        label: one of the six, such as "subdural" or "any".
        slices: numbers in the series, feet to head from 0, or one of them; None: all.
        depth: "fine": maps of stride 8 and 16 of the backbone, positive gradient times activation at each place
            (Jiang et al., "LayerCAM", 2021), their geometric mean; "last": the last map, gradient times activation,
            which where the slice head answers after average pooling is the class activation map of Zhou et al. (2016).
        bag: as for `predict`.
        tta: as for `predict`.
        device: as for `predict`.

    Returns:
        float32 (slices, rows, columns), 0 or more, in units of the logit: what the map would add to it if all of the
        map spoke as this place does. So slices compare. 0 outside of the square that the network sees.

    Raises:
        ConfigError: no such label, slice, depth or view, or a backbone without maps (a transformer).
        ScanError: a slice can't be read; `series.readable()[0]` is the series without such slices.
        RunError: no such run.

    Example:
        >>> import ichseq
        >>> series = ichseq.load_series("scans/stage_2_test")[0]
        >>> maps = ichseq.heatmap("runs/first", series, "any", slices=[3, 4])
        >>> maps.shape == (2, *series.shape[1:]), bool((maps >= 0).all())
        (True, True)
    """
    import numpy as np

    from ichseq.inference.heatmap import ensemble_heatmaps

    numbers = range(len(series)) if slices is None else np.atleast_1d(np.asarray(slices, int)).tolist()
    ensemble = as_ensemble(model, bag=bag, tta=tta, device=device)
    return ensemble_heatmaps(ensemble, series, {label: numbers}, depth=depth)[label]
