"""Which side of the patient lies where in a slice."""

import numpy as np


def sides_of(orientation: np.ndarray) -> dict[str, str]:
    """Which side of the patient lies at the left, right, top and bottom of a slice; nothing where it is not known.

    Args:
        orientation: (6,), ImageOrientationPatient: the directions along a row and down a column (DICOM PS3.3
            C.7.6.2.1.1), towards the patient's left, back and head.
    """
    if not np.isfinite(orientation).all():
        return {}
    sides: dict[str, str] = {}
    for direction, before, after in ((orientation[:3], "left", "right"), (orientation[3:], "top", "bottom")):
        axis = int(np.abs(direction).argmax())
        less, more = (("R", "L"), ("A", "P"), ("F", "H"))[axis]
        sides |= {before: less, after: more} if direction[axis] > 0 else {before: more, after: less}
    return sides
