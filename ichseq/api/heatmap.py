"""heatmap: where in the slices of a series the evidence for a label lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ichseq.api.predict import as_ensemble

if TYPE_CHECKING:
    import numpy as np

    from ichseq.api.predict import Models
    from ichseq.ct.series import Series


def heatmap(
    model: Models,
    series: Series,
    label: str,
    *,
    slices: Sequence[int] | int | None = None,
    bag: int = 0,
    tta: Sequence[str] = (),
    device: str = "auto",
) -> np.ndarray:
    """Where in each slice the evidence for a label lies, in the pixels of the DICOM files.

    Each place of the backbone's last map adds something to the slice's logit: gradient times activation. Where the
    slice head answers after average pooling, this is the class activation map of Zhou et al. (2016), and its mean over
    the map is exactly the logit less its bias. Through a sequence part it holds to first order, for what the slice
    itself shows: what its neighbours add is not seen (gradients as in Selvaraju et al., "Grad-CAM", 2017). What speaks
    against the label is left out.

    Args:
        model: as for `predict`; of several models the mean of their logits is shown.
        series: from `load_series`.
        label: one of the six, such as "subdural" or "any".
        slices: numbers in the series, feet to head from 0, or one of them; None: all.
        bag: as for `predict`.
        tta: as for `predict`.
        device: as for `predict`.

    Returns:
        float32 (slices, rows, columns), 0 or more: by how much the logit would be higher if all of the map looked as
        this place does, so that slices compare. 0 outside of the square that the network sees.

    Raises:
        ConfigError: no such label, slice or view, or a backbone without maps (a transformer).
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
    return ensemble_heatmaps(as_ensemble(model, bag=bag, tta=tta, device=device), series, {label: numbers})[label]
