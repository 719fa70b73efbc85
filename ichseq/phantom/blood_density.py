"""How dense a bleed is: fresh, faint, old, layered, swirling, or old with membranes of fresh blood."""

import numpy as np

from ichseq.phantom.blood_shapes import Shape
from ichseq.phantom.head import Array
from ichseq.phantom.volume import HeadVolume

LEAST_CONTRAST = 9.0
# A film is seen beside bone, dura and grey matter only if it differs from the brain's mean by so much.
FILM_CONTRAST = 20.0
# Blood that is no brighter than the brain is seen by its thickness and by what it pushes, mm.
THICK_MM = 5.0

# What each kind is like, and how often: "fresh", "dense", "faint" (some HU above the brain), "swirl" (parts have not
# clotted yet), "level" (cells have sunk below the serum), "equal" (as dense as the brain), "old" (darker than it),
# "membranes" (old, with sheets of fresh blood in it).
AGES = {
    "epidural": {"fresh": 0.62, "dense": 0.13, "swirl": 0.25},
    "intraparenchymal": {"fresh": 0.5, "dense": 0.12, "faint": 0.15, "swirl": 0.16, "level": 0.07},
    "intraventricular": {"fresh": 0.72, "dense": 0.13, "faint": 0.15},
    "subarachnoid": {"fresh": 0.68, "dense": 0.12, "faint": 0.2},
    "subdural": {"fresh": 0.76, "dense": 0.14, "faint": 0.1},
    "thick subdural": {
        "fresh": 0.37, "dense": 0.08, "faint": 0.07, "swirl": 0.14, "level": 0.12, "equal": 0.09, "old": 0.08,
        "membranes": 0.05,
    },
}  # fmt: skip


def draw_density(
    rng: np.random.Generator, head: HeadVolume, kind: str, shape: Shape, brain_hu: float
) -> tuple[float, Array]:
    """Mean HU of a bleed, and its HU by voxel (Z, Y, X).

    Args:
        rng: of the patient.
        head: where it lies.
        kind: one of `labels.LABELS` but any.
        shape: what it fills.
        brain_hu: of the brain, which all but old subdural blood differs from by `LEAST_CONTRAST`.
    """
    thick = kind == "subdural" and shape.push is not None and float(np.abs(shape.push).max()) > THICK_MM
    chances = AGES["thick subdural" if thick else kind]
    age = str(rng.choice(list(chances), p=list(chances.values())))
    hu = rng.uniform(76, 86) if age == "dense" else rng.uniform(52, 76)
    if age == "faint":
        hu = brain_hu + rng.uniform(LEAST_CONTRAST, 19)
    sheet = kind in ("epidural", "subdural")
    hu = max(hu, brain_hu + (FILM_CONTRAST if sheet else LEAST_CONTRAST))
    texture = shape.texture
    density = np.float32(hu) + np.float32(rng.uniform(1, 4)) * texture
    inside = shape.share > 0.3
    if age == "swirl":
        swirl = np.clip(texture - np.float32(rng.uniform(-0.2, 0.7)), 0, 1)
        density = density - np.float32(rng.uniform(8, 26)) * swirl
    elif age == "level" and inside.any():
        height = head.height_along_gravity_mm
        middle = float(np.quantile(height[inside], rng.uniform(0.3, 0.7)))
        above = np.clip(0.5 + (height - np.float32(middle)) / np.float32(rng.uniform(2, 14)), 0, 1)
        density = density - np.float32(hu - rng.uniform(18, 34)) * above
    elif age == "equal":
        density = np.float32(brain_hu + rng.uniform(-2, 9)) + 2 * texture
    elif age in ("old", "membranes"):
        density = np.float32(np.clip(brain_hu - rng.uniform(4, 16), 18, 30)) + texture
        if age == "membranes":
            sheets = np.clip(1.2 - np.abs(texture) * np.float32(rng.uniform(4, 9)), 0, 1)
            density = density + np.float32(rng.uniform(18, 42)) * sheets
    mean = float(np.average(density[inside], weights=shape.share[inside])) if inside.any() else hu
    return mean, density.astype(np.float32)
