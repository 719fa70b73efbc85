"""From smooth fields to sharp tissue: how much of each pixel is fluid, grey matter, dura or bone, and its HU."""

from dataclasses import dataclass

import numpy as np

from ichseq.phantom.anatomy import Fields
from ichseq.phantom.head import Array, Head

BONE, DIPLOE, AIR, FAT, MUSCLE, SKIN = 1350.0, 720.0, -1000.0, -95.0, 52.0, 20.0


def soft(distance: Array, edge: float) -> Array:
    """Share of a pixel inside a border at signed `distance` (negative inside); the border is `edge` mm wide."""
    return np.clip(0.5 - distance * np.float32(1 / edge), 0, 1)


@dataclass
class Parts:
    """Shares (0 to 1) of the tissues inside the skull that bleeding and HU are made from."""

    inside: Array
    ventricle: Array
    outer_csf: Array
    grey: Array
    dura: Array


def cut_parts(head: Head, f: Fields, edge: float) -> Parts:
    """Shares of the tissues.

    Args:
        head: the head.
        f: fields of `anatomy.head_fields`; "push" is the thickness of blood that lies between skull and brain, and
            "spread" how much wider blood makes the sulci, mm, both optional.
        edge: width of a border, mm.
    """
    old = head.atrophy
    depth = -f["cavity"]
    push = f.get("push")
    if push is not None:
        depth = depth - push
    reach = 15 + 5 * old
    # Folds run in from the surface and from the cleft between the hemispheres.
    depth_of_fold = np.minimum(depth, np.abs(f["middle"]) + 4 + 2 * np.maximum(6 - f["callosum"], 0))
    width = np.float32(0.35 + 1.25 * old) * (np.float32(1.1) - depth_of_fold / np.float32(reach))
    if push is not None:
        width -= 0.12 * push
    if "spread" in f:
        width += f["spread"]
    below_tent = np.clip(-0.5 * f["tent"], 0, 1) * (f["ridge"] > 0)
    width -= 4 * below_tent
    fold = np.abs(f["sulcus"])
    rim = np.float32(0.2 + 1.7 * old)
    middle = np.abs(f["middle"])
    gap = np.float32(0.45 + 1.1 * old)
    fissure = np.maximum(np.maximum(middle - gap, 3 - f["callosum"]), 3 * below_tent)
    nearest = np.minimum(np.minimum(fold - width, depth - rim), np.minimum(fissure, f["cistern"]))
    outer = soft(nearest, edge)
    ventricle = soft(f["ventricle"], edge)
    cortex = np.minimum(
        depth - rim, np.maximum(fold - np.maximum(width, 0), depth_of_fold - np.float32(reach + 1) - 4 * f["tissue"])
    )
    cortex = np.minimum(np.minimum(cortex, fissure), f["cistern"]) - np.float32(2.6)
    grey = soft(np.minimum(cortex, f["grey"]), 1.6 * edge)
    grey = grey * (1 - 0.5 * below_tent) + 0.25 * below_tent
    return Parts(soft(f["cavity"], edge), ventricle, outer, grey, _dura(head, f, middle, below_tent, edge))


def _dura(head: Head, f: Fields, middle: Array, below_tent: Array, edge: float) -> Array:
    half = np.float32(head.dura_thickness / 2)
    falx = np.maximum(np.maximum(middle - half, 8 - f["callosum"]), 3 * below_tent)
    tent = np.abs(f["tent"])
    sheet = np.maximum(tent - half, f["tent_edge"])
    depth = -f["cavity"]
    sagittal = np.maximum(middle - 4.5 + 0.6 * depth, 4 - f["callosum"])
    lateral = np.maximum(np.sqrt(tent * tent + (depth - 1.5) ** 2) - 3.2, 18 - f["ridge"])
    straight = np.maximum(np.sqrt(tent * tent + middle * middle) - 2.0, f["tent_edge"])
    return soft(np.minimum(np.minimum(falx, sheet), np.minimum(np.minimum(sagittal, lateral), straight)), edge)


def hounsfield(
    head: Head, f: Fields, parts: Parts, blood: list[tuple[Array, float, Array | None]], edge: float
) -> Array:
    """HU of one plane.

    Args:
        head: the head.
        f: fields of the inside and of the face.
        parts: shares from `cut_parts`.
        blood: for each bleed its share, its HU, and the share of oedema around it or None.
        edge: width of a border, mm.
    """
    brain = parts.grey * np.float32(head.grey - head.white) + np.float32(head.white) + f["tissue"]
    for _, _, oedema in blood:
        if oedema is not None:
            brain -= 11 * oedema
    # White matter around the ventricles grows dark with age.
    brain -= np.float32(6 * head.atrophy) * np.exp(np.maximum(f["ventricle"], 0) * np.float32(-0.14))
    csf = np.maximum(parts.outer_csf, parts.ventricle)
    brain += csf * (np.float32(head.csf) - brain)
    # The scanner's blur and beam hardening brighten the brain next to bone.
    brain += 7 * np.exp(np.minimum(f["cavity"], 0) * np.float32(0.45))
    brain += parts.dura * (np.float32(head.dura) - brain)
    for share, hu, _ in blood:
        brain += share * (np.float32(hu) - brain)
    brain += f["spots"]
    skin = f["skin"]
    density: Array = np.float32(MUSCLE) + np.float32(FAT - MUSCLE) * f["fat"]
    density += soft(-2.2 - skin, edge) * (np.float32(SKIN) - density)
    if "globe" in f:
        shell = np.abs(f["globe"] + 0.8) - 0.8
        density += soft(f["globe"], edge) * (12 - density)
        density += soft(shell, edge) * (45 - density)
    density += parts.inside * (brain - density)
    bone: Array = np.float32(BONE) + np.float32(DIPLOE - BONE) * soft(f["bone"] + 2.0, 2.0)
    density += soft(f["bone"], edge) * (bone - density)
    if "air" in f:
        density += soft(f["air"], edge) * (np.float32(AIR) - density)
    density += soft(-skin, edge) * (np.float32(AIR) - density)
    return density
