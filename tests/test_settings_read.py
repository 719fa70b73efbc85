"""The marks of the settings are true: a stage's weights do not depend on what it ignores by them."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny
from safetensors.torch import load_file

from ichseq.config import STAGES, settings_ignored_by, settings_without_effect
from ichseq.training.train import train_stage

OTHERS: dict[str, dict[str, Any]] = {
    "model": {"cross_slice": [8], "views": ["flip"], "sequence": "gru_projected", "hidden_size": 4}
    | {"sequence_inputs": ["position"], "exam": "attention", "channel_dropout": 0.5, "sequence_dropout": 0.5}
    | {"sequence_slices": 3, "slice_dropout": 0.5, "embedding_noise": 0.5},
    "train": {"backbone_lr": 0.3, "cross_slice_lr": 0.3, "patients_per_batch": 3, "slices_per_batch": 5, "mixup": 0.7}
    | {"window": 4, "freeze_epochs": 1, "gradient_share": 0.5, "aux_weight": 0.9, "embeddings": "float16"}
    | {"slice_weight": 0.3, "exam_weight": 0.3, "keep_weight": 5, "keep": "posterior", "fit_share": True}
    | {"backbone_blocks": 1, "layer_decay": 0.5}
    | {"checkpointing": "on", "checkpoint_every": 1, "workers": 0},
    "augment": {"flip": 0.9, "transpose": 0.9, "affine": 0.9, "shift": 0.2, "scale": 0.2, "rotate": 50, "per": "slice"}
    | {"stretch": 0.2, "tissue_shift": 5, "tissue_contrast": 0.2, "shading": 5, "blur": 1, "sharpen": 1, "noise": 5}
    | {"correlated_noise": 5, "flip_vertical": 0.9},
}


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_ignores_does_not_change_its_weights(stage: str, prepared: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(prepared, tmp_path / "set"))  # may gain embeddings
    config = tiny(stage, "train.epochs=1", "model.dropout=0.2", "model.freeze_bn=true")
    ignored = settings_ignored_by(stage)
    names = [(section, name) for section, values in ignored.items() for name in values]
    changed = config
    for section, name in [*names, *settings_without_effect()]:
        part = dataclasses.replace(getattr(changed, section), **{name: OTHERS[section][name]})
        changed = dataclasses.replace(changed, **{section: part})
    leaves = [train_stage(one, stage, data=own, fold=0, out=tmp_path / run, progress=False)
              for run, one in (("plain", config), ("changed", changed))]  # fmt: skip
    plain, other = (load_file(leaf / "weights.safetensors") for leaf in leaves)
    shared = [key for key in plain if stage != "slice" or not key.startswith("sequence.")]
    assert len(shared) > 20
    for key in shared:
        torch.testing.assert_close(other[key], plain[key], rtol=1e-5, atol=1e-6)
