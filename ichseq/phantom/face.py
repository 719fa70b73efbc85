"""What lies outside the brain: scalp, face, orbits, sinuses and the bones around them, as fields in millimetres."""

import numpy as np

from ichseq.phantom.anatomy import FAR, Fields, cone, ellipsoid, ramp
from ichseq.phantom.head import Array, Head


def add_face(head: Head, fields: Fields, x: Array, y: Array, z: Array) -> None:
    """Add the fields "skin" (outside of the head), "fat" (weight), and near the base "air" and "globe"; widen "bone".

    Args:
        head: the head.
        fields: the fields of `anatomy.head_fields` at the same points.
        x: to the patient's left, mm in the standard head.
        y: to the back.
        z: up.
    """
    ax = np.abs(x)
    muscle = np.exp(-(((y + 18) / 26) ** 2) - ((z + 5) / 34) ** 2) * ramp((ax - 35) / 15)
    outer = fields["vault"] - head.skull_thickness
    fields["skin"] = outer - head.scalp_thickness - 5 * muscle
    fields["fat"] = np.clip(1.1 - 2.2 * muscle, 0, 1)
    if float(z.min()) < 8:
        low = np.flatnonzero((z < 12) & (fields["skin"] < 45))
        part = [p.reshape(-1)[low] for p in (x, ax, y, z)]
        names = ("skin", "fat", "bone", "cavity", "vault", "below")
        local = {name: fields[name].reshape(-1)[low] for name in names}
        local["air"] = np.full_like(part[0], FAR)
        local["globe"] = np.full_like(part[0], FAR)
        _base(head, local, *part)
        for name in ("skin", "fat", "bone", "air", "globe"):
            whole = fields.setdefault(name, np.full(x.shape, FAR, np.float32))
            whole.reshape(-1)[low] = local[name]


def _base(head: Head, f: Fields, x: Array, ax: Array, y: Array, z: Array) -> None:
    rough = head.face_waves(x, y, z)
    neck = (np.sqrt((x / 70) ** 2 + ((y + 5) / 93) ** 2) - 1) * 70
    neck = np.maximum(neck, (y - 72) - 0.25 * np.minimum(z + 40, 0))
    nose = cone(x, y, z, (0, -92, -28, 5), (0, -108, -56, 9))
    f["skin"] = np.minimum(np.minimum(f["skin"], np.maximum(neck, (z - 6) * 0.7)), nose)
    face = ramp((-18 - z) / 10) * ramp((f["below"] - 2) / 4)
    f["fat"] = f["fat"] * (1 - face) + face * np.clip(0.8 * rough - 0.2 + 0.9 * ramp((-y - 30) / 50), 0, 1)
    orbit = cone(ax, y, z, (32, -76, -31, 17), (13, -30, -28, 3))
    globe = ellipsoid(ax, y, z, (32, -76, -31), (12, 12, 12))
    recti = cone(ax, y, z, (21, -70, -31, 2.2), (13, -34, -28, 1.6))
    for start, end in (((43, -68, -31, 2.2), (15, -34, -28, 1.6)), ((32, -64, -31, 2.2), (12, -32, -28, 1.8))):
        recti = np.minimum(recti, cone(ax, y, z, start, end))
    f["globe"] = globe
    in_orbit = np.clip(0.5 - orbit / 2, 0, 1) * ramp((f["cavity"] - 1) / 3)
    f["fat"] = f["fat"] * (1 - in_orbit) + in_orbit * np.clip(recti + 0.5, 0, 1) * np.clip(globe, 0, 1)
    _air(head, f, x, ax, y, z, rough)
    f["skin"] = np.maximum(f["skin"], -200)
    walls = np.maximum(np.maximum(-orbit, orbit - 3), -82 - y)
    walls = np.maximum(walls, 2 - f["cavity"])
    zygoma = cone(ax, y, z, (46, -74, -44, 4.5), (67, -18, -42, 2.5))
    jaw = cone(ax, y, z, (52, 0, -46, 4), (46, -18, -82, 5))
    canal = np.sqrt(x * x + (y - 38) ** 2)
    atlas = np.maximum(np.abs(canal - 19) - 4, np.abs(z + 78) - 5)
    dens = ellipsoid(x, y, z, (0, 22, -78), (5.5, 5.5, 10))
    palate = np.maximum(np.maximum(np.abs(z + 78) - 2, ax - 22), np.maximum(-88 - y, y + 45))
    bones = np.minimum(np.minimum(zygoma, jaw), np.minimum(atlas, np.minimum(dens, palate)))
    bones = np.minimum(np.minimum(bones, walls), f.pop("sinus_walls"))
    f["bone"] = np.maximum(np.minimum(f["bone"], np.maximum(bones, 0.5 - f["cavity"])), f["skin"] + 3)


def _air(head: Head, f: Fields, x: Array, ax: Array, y: Array, z: Array, rough: Array) -> None:
    """Sinuses, nose, throat, ear canals and mastoid cells."""
    sphenoid = ellipsoid(x, y, z, (0, -18, -41), (13, 13, 9))
    maxillary = ellipsoid(ax, y, z, (27, -60, -62), (14, 17, 15))
    frontal = ellipsoid(ax, y, z, (11, -90, -8), (13, 4, max(head.frontal_sinus, 1.5)))
    sinuses = np.minimum(np.minimum(sphenoid, maxillary), frontal)
    ethmoid = ellipsoid(x, y, z, (0, -52, -38), (13, 24, 12))
    septa = 0.9 - np.abs(np.sin(y * 0.42 + rough * 0.5)) * 2.6
    cells = np.maximum(ethmoid, np.maximum(septa, 0.8 - np.abs(ax - 5)))
    nasal = np.maximum(ellipsoid(x, y, z, (0, -68, -60), (15, 30, 14)), np.maximum(0.8 - ax, rough * 2.5 - 1.2))
    throat = ellipsoid(x, y, z, (0, -22, -72), (11, 8, 14))
    ear = cone(ax, y, z, (44, 13, -37, 3), (80, 13, -39, 4))
    mastoid = ellipsoid(ax, y, z, (56, 32, -38), (9, 15, 15))
    mastoid = np.maximum(mastoid, (head.air_cells - rough) * 2)
    air = np.minimum(np.minimum(sinuses, cells), np.minimum(nasal, throat))
    air = np.maximum(np.minimum(np.minimum(air, ear), mastoid), 2 - f["cavity"])
    f["air"] = air
    f["sinus_walls"] = np.maximum(
        np.minimum(np.abs(sinuses - 0.9) - 0.9, np.maximum(np.abs(ethmoid) - 1.0, -cells)), -air
    )
