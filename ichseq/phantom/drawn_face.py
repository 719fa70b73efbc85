"""Scalp, face, orbits, sinuses, ears and muscles of a drawn head, and the bones around them, as fields in mm."""

import numpy as np

from ichseq.phantom.anatomy import FAR, Fields, cone, ellipsoid, ramp
from ichseq.phantom.head import Array
from ichseq.phantom.person import Person

ORBIT, APEX = (32, -72, -30, 17), (13, -32, -27, 3)
RECTI = (((21, -68, -30, 2.2), 1.6), ((43, -66, -30, 2.2), 1.6), ((32, -68, -19, 2.0), 1.6), ((32, -62, -30, 2.4), 1.8))


def add_outside(person: Person, f: Fields, x: Array, y: Array, z: Array) -> None:
    """Add the fields "skin" (outside of the head), "fat" (weight), "air" and "globe"; "bone" grows and shrinks.

    Args:
        person: whose.
        f: fields "vault" (distance to the inner table), "cavity", "bone", "below" at the same points (n,).
        x: to the patient's left, mm in the standard head.
        y: to the back.
        z: up.
    """
    head, ax = person.head, np.abs(x)
    outer = f["vault"] - head.skull_thickness
    # The temporal muscle lies in the hollow behind the orbit, under the scalp.
    hollow = np.exp(-(((y + 20) / 24) ** 2) - ((z + 10) / 22) ** 2) * ramp((ax - 30) / 18)
    muscle = np.float32(person.temporal_muscle) * hollow
    f["skin"] = outer - head.scalp_thickness - 0.6 * muscle
    f["fat"] = np.clip(0.5 + (outer - muscle + 1.5 * (muscle < 1)) / 1.5, 0, 1)
    f["air"] = np.full_like(x, FAR)
    f["globe"] = np.full_like(x, FAR)
    f["cells"] = np.full_like(x, FAR)
    if not x.size or z.min() > 16:
        return
    rough = head.face_waves(x, y, z)
    _add_neck(person, f, x, ax, y, z, rough)
    _add_orbits(f, ax, y, z)
    _add_bones(person, f, x, ax, y, z, rough)
    _add_air(person, f, x, ax, y, z, rough)
    if person.ears:
        _add_ears(f, ax, y, z)
    f["bone"] = np.maximum(f["bone"], f["skin"] + 2.5)


def _add_neck(person: Person, f: Fields, x: Array, ax: Array, y: Array, z: Array, rough: Array) -> None:
    """Skin of face and neck, and in it muscles as bellies with thin layers of fat between them."""
    narrow = 1 - 0.12 * ramp((-z - 30) / 50)
    neck = (np.sqrt((x / (70 * narrow)) ** 2 + ((y + 5) / 92) ** 2) - 1) * 70
    neck = np.maximum(neck, (y - 74) - 0.25 * np.minimum(z + 40, 0))
    nose = cone(x, y, z, (0, -90, -26, 5), (0, -106, -54, 9))
    f["skin"] = np.minimum(np.minimum(f["skin"], np.maximum(neck, (z + 4) * 0.7)), nose)
    low = ramp((-10 - z) / 14) * ramp((f["below"] - 1) / 4)
    layers = person.head.face_waves(0.5 * x, 0.6 * y, 0.25 * z)
    between = 0.55 * np.exp(-((layers / 0.16) ** 2)) + 0.8 * ramp((-y - 50) / 25) * (rough > -0.3)
    # Under the skin lies fat.
    between = np.maximum(between, ramp((f["skin"] + 10 * person.subcutaneous) / 3))
    f["fat"] += low * (np.clip(between, 0, 1) - f["fat"])


def _add_orbits(f: Fields, ax: Array, y: Array, z: Array) -> None:
    orbit = cone(ax, y, z, ORBIT, APEX)
    f["globe"] = ellipsoid(ax, y, z, (32, -77, -30), (12, 12, 12))
    content: Array = np.full_like(ax, FAR)
    for start, radius in RECTI:
        content = np.minimum(content, cone(ax, y, z, start, (*APEX[:3], radius)))
    inside = np.clip(0.5 - orbit / 2, 0, 1) * ramp((f["cavity"] - 1) / 3)
    f["fat"] += inside * (np.clip(content + 0.5, 0, 1) * np.clip(f["globe"], 0, 1) - f["fat"])
    f["orbit"] = orbit


def _add_bones(person: Person, f: Fields, x: Array, ax: Array, y: Array, z: Array, rough: Array) -> None:
    """Brow, walls of the orbits, cheekbones, jaws, vertebrae; the orbit is hollowed out of the base of the skull."""
    orbit = f.pop("orbit")
    lateral = ramp((ax - 30) / 10)
    walls = np.maximum(np.maximum(-orbit, orbit - 0.9 - 2.6 * lateral - 0.4 * rough), -76 - 6 * (1 - lateral) - y)
    f["brow"] = np.sqrt((x / 60) ** 2 + ((y + 34) / 50) ** 2) * 55 - 53 - rough
    brow = np.abs(f["brow"]) - 3.2 - 2.0 * np.exp(-((ax / 18) ** 2))
    brow = np.maximum(np.maximum(np.maximum(brow, y + 44), np.abs(z + 14) - 11), -orbit)
    zygoma = cone(ax, y, z, (45, -72, -42, 5), (60, -50, -44, 3))
    arch = cone(ax, y, z, (60, -50, -44, 2.6), (68, -4, -38, 2.2))
    jaw = np.minimum(
        cone(ax, y, z, (53, -2, -43, 4.5), (49, -10, -84, 4)), cone(ax, y, z, (52, -22, -62, 2.5), (46, -30, -84, 4))
    )
    canal = np.sqrt(x * x + (y - 34) ** 2)
    atlas = np.maximum(np.abs(canal - 18 - rough) - 3.5, np.abs(z + 78) - 5)
    dens = ellipsoid(x, y, z, (0, 18, -78), (5.5, 5.5, 10))
    upper = np.abs(np.sqrt((x / 26) ** 2 + ((y + 62) / 28) ** 2) * 26 - 24) - 4
    upper = np.maximum(np.maximum(upper, y + 50), np.abs(z + 80) - 7)
    palate = np.maximum(np.maximum(np.abs(z + 73) - 1.5, ax - 22), np.maximum(-86 - y, y + 44))
    pterygoid = cone(ax, y, z, (14, -26, -48, 2.2), (17, -26, -70, 1.6))
    mastoid = ellipsoid(ax, y, z, (59, 28, -40), (9, 16, 20))
    septum = np.maximum(np.maximum(ax - 0.8 - 0.4 * rough, np.abs(y + 66) - 26), np.abs(z + 54) - 18)
    bones = np.minimum(np.minimum(np.minimum(zygoma, arch), np.minimum(jaw, atlas)), np.minimum(dens, upper))
    bones = np.minimum(np.minimum(bones, np.minimum(palate, pterygoid)), np.minimum(np.minimum(walls, brow), septum))
    bones = np.minimum(bones, np.maximum(mastoid, f["vault"] - person.head.skull_thickness - 3))
    f["bone"] = np.minimum(np.maximum(f["bone"], np.minimum(-orbit, 3)), np.maximum(bones, 0.5 - f["cavity"]))


def _add_air(person: Person, f: Fields, x: Array, ax: Array, y: Array, z: Array, rough: Array) -> None:
    """Sinuses with thin walls, nose, throat, ear canals and the cells of the mastoids."""
    head = person.head
    sphenoid = np.maximum(ellipsoid(x, y, z, (0, -18, -40), (14, 13, 9)), 0.7 - np.abs(x - 2 * rough))
    maxillary = ellipsoid(ax, y, z, (27, -56, -57), (15 + 3 * float(person.base_bone), 18, 16)) + 1.2 * rough
    maxillary = np.maximum(maxillary, 14 + 0.25 * (z + 57) - ax)
    frontal = np.maximum(ax - 8 - 0.8 * head.frontal_sinus - 4 * rough, np.abs(z + 14) - head.frontal_sinus)
    frontal = np.maximum(
        np.maximum(frontal, 0.6 - np.abs(x - 3 * rough)), np.maximum(np.abs(f.pop("brow")) - 2.4, y + 50)
    )
    ethmoid = ellipsoid(x, y, z, (0, -50, -37), (13, 26, 13))
    nasal = np.maximum(ellipsoid(x, y, z, (0, -66, -58), (15, 32, 16)), np.maximum(1.2 - ax, rough * 3 - 0.6))
    throat = ellipsoid(x, y, z, (0, -18, -70), (12, 8, 16))
    ear = cone(ax, y, z, (47, 12, -36, 2.6), (80, 13, -38, 3.4))
    middle_ear = ellipsoid(ax, y, z, (45, 12, -35), (3.5, 6, 5))
    mastoid = ellipsoid(ax, y, z, (58, 28, -38), (9, 15, 17))
    # Small cells are cut at full resolution, when the plane is drawn.
    f["cells"] = np.maximum(np.minimum(ethmoid, mastoid), 2.0 - f["cavity"])
    air = np.minimum(np.minimum(sphenoid, maxillary), np.minimum(frontal, nasal))
    air = np.minimum(np.minimum(air, throat), np.minimum(ear, middle_ear))
    f["air"] = np.maximum(air, 1.5 - f["cavity"])
    hollow = np.minimum(np.minimum(sphenoid, maxillary), ethmoid)
    thin = np.maximum(np.abs(hollow - 0.6) - 0.7, -air)
    f["bone"] = np.minimum(f["bone"], np.maximum(ethmoid, -air))
    f["bone"] = np.minimum(f["bone"], np.maximum(thin, 0.5 - f["cavity"]))


def _add_ears(f: Fields, ax: Array, y: Array, z: Array) -> None:
    """Thin flaps beside the head with a thicker rim."""
    disc = np.sqrt(((y - 22) / 14) ** 2 + ((z + 34) / 26) ** 2)
    flap = np.maximum(np.abs(ax - 76 - 0.35 * (y - 14)) - 1.3, (disc - 1) * 14)
    rim = np.maximum(np.maximum(disc - 1, 0.78 - disc) * 14, np.abs(ax - 77.5 - 0.35 * (y - 14)) - 2.4)
    flap = np.minimum(flap, rim)
    f["fat"] = np.where((flap < 0) & (f["skin"] > 0), 0.35, f["fat"])
    f["skin"] = np.minimum(f["skin"], flap)
