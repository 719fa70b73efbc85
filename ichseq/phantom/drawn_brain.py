"""The inside of a drawn head's skull: brain, fluid, ventricles, vessels, falx and tentorium, from the tissue maps."""

import numpy as np
from scipy import ndimage

from ichseq.phantom.anatomy import NUCLEI, Fields, cone, ellipsoid, ramp
from ichseq.phantom.head import Array
from ichseq.phantom.icbm152 import atlas_points, load_maps, sample_distance, sample_share
from ichseq.phantom.lookalikes import ARTERIES
from ichseq.phantom.person import FOLD_STEP, Person
from ichseq.phantom.tissue import soft

CHOROID = ((21, 36, 7), (3.2, 6.5, 5.5))


def brain_fields(person: Person, f: Fields) -> Fields:
    """Where points lie in the atlas's brain, its grey matter and ventricles there, and the person's own folds."""
    maps = load_maps()
    names = ("to_x", "to_y", "to_z", "grey", "wall", "ventricle", "fold")
    out = {name: np.zeros_like(f["x"]) for name in names}
    out["wall"] += 20
    out["ventricle"] += 20
    index = np.flatnonzero(f["cavity"] < 6)
    if not index.size:
        return out
    x, y, z, middle = (f[name].reshape(-1)[index] for name in ("x", "y", "z", "middle"))
    gx, gy, gz = (wave(x, y, z) for wave in person.gyri)
    inner, size = 1 / np.float32(person.brain_scale), 1 / np.float32(person.ventricle_scale)
    to = (middle + gx) * inner, (y - 4 + gy) * inner + 4, (z + gz) * inner
    points = atlas_points(*to)
    grown = atlas_points((middle + gx) * size, (y - 8 + gy) * size + 8, (z - 8 + gz) * size + 8)
    place = np.stack([x, y, z]) / np.float32(FOLD_STEP)
    found = (
        *to,
        sample_share(maps.grey, points),
        sample_distance(maps.ventricle, points),
        sample_distance(maps.ventricle, grown) - np.float32(person.ventricle_growth),
        ndimage.map_coordinates(person.folds, place, np.float32, order=1, mode="grid-wrap", prefilter=False),
    )
    for name, value in zip(names, found, strict=True):
        out[name].reshape(-1)[index] = value
    return out


def draw_brain(person: Person, f: Fields, edge: float) -> tuple[Array, Array, Array]:
    """HU, share of outer fluid and of ventricle at points (n,) inside the skull."""
    head = person.head
    y, z, ax, depth = f["y"], f["z"], np.abs(f["middle"]), -f["cavity"]
    fluid = sample_share(load_maps().fluid, atlas_points(f["to_x"], f["to_y"], f["to_z"]))
    ventricle = soft(np.maximum(f["ventricle"], 4 - depth), edge)
    outer = fluid * np.clip((f["wall"] - 0.5) / 2, 0, 1)
    own = np.exp(-((f["fold"] / 0.28) ** 2)) - 0.3
    # Young brains leave little room beside the falx.
    falx = np.exp(-((ax / 3.2) ** 2)) * ramp((_callosum(y, z) - 4) / 4) * ramp(f["tent"] / 6)
    outer = outer - np.float32(0.75 * (1 - head.atrophy)) * falx
    grey = f["grey"]
    outer = outer + np.float32(person.fold_depth) * own * np.clip(1.4 - depth / 13, 0, 1) * (grey > 0.2)
    csf = np.clip((outer - f["from"]) / np.float32(person.fluid_over), 0, 1) * (1 - ventricle)
    grey = np.clip((grey - 0.5) * 1.25 + 0.5, 0, 1)
    for centre, radii in NUCLEI:
        grey = np.maximum(grey, 0.75 * soft(ellipsoid(ax, y, z, centre, radii), 4.0))
    hu = np.float32(head.white) + np.float32(head.grey - head.white) * grey + f["tissue"]
    hu -= np.float32(person.lucency) * np.exp(np.maximum(f["ventricle"], 0) * np.float32(-0.13)) * (1 - 0.7 * grey)
    hu += (csf + ventricle) * (np.float32(head.csf) - hu)
    choroid = soft(ellipsoid(ax, y, z, *CHOROID), 2.0) * ventricle
    hu += choroid * (np.float32(person.choroid) - hu)
    _vessels(person, hu, ax, y, z, edge)
    hu += np.float32(person.rim) * np.exp(np.minimum(-depth, 0) * np.float32(0.48))
    dura, sinus = _dura(person, f, depth, edge)
    hu += dura * (np.float32(head.dura) - hu)
    hu += sinus * (np.float32(person.sinuses) - hu)
    return hu, csf * (1 - dura) * (1 - sinus), ventricle * (1 - dura)


def _vessels(person: Person, hu: Array, ax: Array, y: Array, z: Array, edge: float) -> None:
    low, high = z.min(), z.max()
    for start, end in ARTERIES:
        if high > min(start[2], end[2]) - 4 and low < max(start[2], end[2]) + 4:
            near = np.flatnonzero((ax < max(start[0], end[0]) + 4) & (np.abs(y - (start[1] + end[1]) / 2) < 24))
            share = soft(cone(ax[near], y[near], z[near], start, end), edge)
            hu[near] += share * (np.float32(person.vessels) - hu[near])


def _callosum(y: Array, z: Array) -> Array:
    """Distance from the ellipse of the median plane within which there is neither fissure nor falx, 15 at most."""
    return np.minimum((np.sqrt(((y - 4) / 47) ** 2 + ((z - 8) / 27) ** 2) - 1) * 30, 15)


def _dura(person: Person, f: Fields, depth: Array, edge: float) -> tuple[Array, Array]:
    """Shares of dura (falx, tentorium) and of the venous sinuses."""
    y, z, middle, tent = f["y"], f["z"], np.abs(f["middle"]), f["tent"]
    callosum = _callosum(y, z)
    half = np.float32(0.5 * person.head.dura_thickness) * (0.8 + 0.4 * ramp((y + 30) / 80))
    below = np.clip(-0.5 * tent, 0, 1) * (f["ridge"] > 0)
    falx = np.maximum(np.maximum(middle - half, 7 - callosum), 3 * below)
    notch = (1 - np.sqrt((f["x"] / 19) ** 2 + ((y - 4) / 30) ** 2)) * 19
    edge_of_tent = np.maximum(notch, -f["ridge"] - 2)
    sheet = np.maximum(np.abs(tent) - half, edge_of_tent)
    dura = soft(np.minimum(falx, sheet), edge)
    sagittal = np.maximum(middle - 4.2 + 0.6 * depth, np.maximum(4 - callosum, 2 - tent))
    lateral = np.maximum(np.sqrt(tent * tent + (depth - 1.5) ** 2) - 3.2, 18 - f["ridge"])
    straight = np.maximum(np.sqrt(tent * tent + middle * middle) - 2.0, np.maximum(edge_of_tent, 22 - y))
    return dura, soft(np.minimum(np.minimum(sagittal, lateral), straight), edge)
