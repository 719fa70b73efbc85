"""DeLong's variance of the AUC and its test for two scores of the same cases, where cases come in clusters.

Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988), 837-845, for independent cases; X. Sun
and W. Xu, IEEE Signal Processing Letters 21 (2014), 1389-1393, for its components from mid-ranks, which takes a sort
instead of every pair; N. A. Obuchowski, Biometrics 53 (1997), 567-578, for cases in clusters, such as the slices of a
patient. With a case a cluster, Obuchowski's variance is DeLong's.
"""

from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from ichseq.errors import DataError
from ichseq.evaluation.bootstrap import Floats, Integers


def auc_covariance(scores: Floats, truth: Floats, cluster: Integers) -> tuple[Floats, Floats]:
    """AUCs of several scores of the same cases, and how chance moves them together.

    Args:
        scores: (k, n).
        truth: (n,), 0 or 1.
        cluster: (n,), the same number for cases of one cluster; at least two clusters hold positives and two negatives.

    Returns:
        The AUCs, (k,), and their covariance, (k, k).

    Raises:
        DataError: `why_undefined` has a reason.
    """
    if reason := why_undefined(truth, cluster):
        raise DataError(f"the AUC's variance is undefined: {reason}")
    positive, negative = truth == 1, truth == 0
    m, n = int(positive.sum()), int(negative.sum())
    ranks = rankdata(scores, axis=1)
    of_positives = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n  # share of negatives below each
    of_negatives = 1 - (ranks[:, negative] - rankdata(scores[:, negative], axis=1)) / m  # and of positives above
    aucs = of_positives.mean(axis=1)
    number = np.unique(cluster, return_inverse=True)[1]
    up, has_up = _sums(of_positives - aucs[:, None], number[positive], number.max() + 1)
    down, has_down = _sums(of_negatives - aucs[:, None], number[negative], number.max() + 1)
    clusters = len(has_up)
    # In Obuchowski's terms S10 / m, S01 / n and S11 / (m n), each corrected for the number of its clusters.
    covariance = up @ up.T * _corrected(has_up.sum()) / m**2 + down @ down.T * _corrected(has_down.sum()) / n**2
    across = up @ down.T * _corrected(clusters) / (m * n)
    return aucs, covariance + across + across.T


def why_undefined(truth: Floats, cluster: Integers) -> str:
    """Why the variance of an AUC is undefined, or nothing."""
    for value, name in ((1, "positive"), (0, "negative")):
        found = np.unique(cluster[truth == value])
        if not len(found):
            return f"no {name} case"
        if len(found) == 1:
            return f"all {name} cases are one patient's"
    return ""


def _sums(values: Floats, cluster: Integers, clusters: int) -> tuple[Floats, np.ndarray]:
    """Sums by cluster, (k, clusters), and which clusters have a case."""
    sums = np.stack([np.bincount(cluster, row, minlength=clusters) for row in values])
    return sums.astype(np.float64), np.bincount(cluster, minlength=clusters) > 0


def _corrected(number: int) -> float:
    return number / (number - 1)


def delong_test(one: Floats, other: Floats, truth: Floats, cluster: Integers) -> dict[str, Any]:
    """Whether two scores of the same cases differ in their AUC.

    Args:
        one: (n,).
        other: (n,).
        truth: (n,), 0 or 1; NaN where unknown, and left out then.
        cluster: (n,), the same number for cases of one patient.

    Returns:
        A dict that is strict JSON: one and other (the AUCs), difference, interval (its 95 % interval), z and p (two
        sides), cases, positives and clusters; and undefined, why all but the counts are None, where they are. Two
        scores that order all pairs alike have no difference, p 1 and an interval of no width.
    """
    known = ~np.isnan(truth)
    truth, cluster = truth[known], cluster[known]
    counts = {"cases": len(truth), "positives": int((truth == 1).sum()), "clusters": len(np.unique(cluster))}
    names = ("one", "other", "difference", "interval", "z", "p")
    if reason := why_undefined(truth, cluster):
        return dict.fromkeys(names) | counts | {"undefined": reason}
    aucs, covariance = auc_covariance(np.stack([one[known], other[known]]), truth, cluster)
    difference = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = np.sqrt(max(variance, 0.0))
    reach = norm.ppf(0.975) * error
    # Rounding leaves about 1e-17 of a variance that is zero.
    z = difference / error if error > 1e-8 else 0.0 if abs(difference) < 1e-12 else np.copysign(np.inf, difference)
    return {
        "one": float(aucs[0]),
        "other": float(aucs[1]),
        "difference": difference,
        "interval": [difference - reach, difference + reach],
        "z": float(z) if np.isfinite(z) else None,
        "p": float(2 * norm.sf(abs(z))),
        **counts,
        "undefined": None,
    }
