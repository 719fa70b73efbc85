"""Makes of a run a network that ships: `python experiments/shipped/pack.py RUN ichseq/networks/phantom-1`.

The weights are halved in size, what is known of the training is reduced to what says nothing of a machine, and the
model card of docs/ is laid beside. NOTICE is written by hand and has to be there.
"""

import argparse
import hashlib
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ichseq.errors import RunError
from ichseq.files import replacing, write_text
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_sources
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.model.saved import read_model, write_model
from ichseq.networks.shipped import CARD, CHECKSUMS, DESCRIPTION, NOTICE, WEIGHTS
from ichseq.phantom import write_phantoms
from ichseq.runs.folders import models_of

ROOT = Path(__file__).parents[2]
SCANS = "made-up bleeding in heads that were drawn and in one real head without bleeding (head_ct_ge), deformed"
KEPT = ("phantom", "data_key", "fold", "stage", "answers_with", "ichseq", "precision", "slice_distance_mm")
"""What a model knows of its training and may ship."""
MOST_BYTES = 12_000_000
MOST_CHANGE = 0.02


def main() -> None:
    asked = _arguments()
    leaf = _only_model(asked.run)
    description, tensors = read_model(leaf)
    weights = {name: _halved(name, tensor) for name, tensor in tensors.items()}
    size = len(save(weights))
    if size > MOST_BYTES:
        raise RunError(f"{leaf}: {size / 1e6:.1f} MB in half precision, {MOST_BYTES / 1e6:.0f} may ship; train "
                       "a smaller network")  # fmt: skip
    known = {key: description.trained_on[key] for key in KEPT if key in description.trained_on}
    known |= {"network": asked.folder.name, "scans": asked.scans}
    with tempfile.TemporaryDirectory() as place:
        trial = Path(place) / asked.folder.name
        write_model(trial, description._replace(trained_on=known), weights)
        change = _largest_change(leaf, trial, Path(place) / "phantoms", asked.patients)
        print(f"largest change of a probability by half precision, on {asked.patients} phantoms: {change:.5f}")
        if change > MOST_CHANGE:
            raise RunError(f"{leaf}: half precision changes a probability by {change:.3f}, {MOST_CHANGE} is allowed")
        _lay_down(trial, asked.folder)
    write_text(asked.folder / CARD, asked.card.read_text(encoding="utf-8"))
    print(f"{asked.folder}: {size / 1e6:.2f} MB of weights")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="runs/NAME, or a leaf of it")
    parser.add_argument("folder", type=Path, help="ichseq/networks/NAME; NOTICE has to be in it")
    parser.add_argument("--scans", default=SCANS, help="what it was trained on, in a line")
    parser.add_argument("--card", type=Path, default=ROOT / "docs" / "model-card.md", help="the model card")
    parser.add_argument("--patients", type=int, default=4, help="phantoms on which half precision is measured")
    asked = parser.parse_args()
    if not (asked.folder / NOTICE).is_file():
        raise RunError(f"{asked.folder / NOTICE}: is not there; write what the licences want of what it was made from")
    return asked


def _only_model(run: Path) -> Path:
    folders = models_of(run)
    if len(folders) != 1:
        raise RunError(f"{run}: has {len(folders)} models, one ships; name its leaf")
    return folders[0]


def _halved(name: str, tensor: Tensor) -> Tensor:
    """Matrices and kernels in half precision; the short rest, batch norm's statistics among it, as it is."""
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise RunError(f"{name}: holds a weight beyond half precision; train again")
    return half


def _largest_change(leaf: Path, packed: Path, phantoms: Path, patients: int) -> float:
    """The largest difference of a probability between a run's weights and the packed ones."""
    write_phantoms(phantoms, patients=patients, test_patients=0, size=256, seed=1, heads="mixed")
    tables = [
        predict_sources(ModelEnsemble(Model.load(folder)), [phantoms / "stage_2_train"]).slices
        for folder in (leaf, packed)
    ]
    before, after = (table[list(LABELS)].to_numpy() for table in tables)
    print(f"probabilities from {after.min():.3f} to {after.max():.3f}")
    return float(abs(before - after).max())


def _lay_down(trial: Path, folder: Path) -> None:
    """The files of a trial, each beside and then renamed into place, and their checksums last."""
    lines = []
    for name in (DESCRIPTION, WEIGHTS):
        with replacing(folder / name) as beside:
            shutil.copyfile(trial / name, beside)
        lines.append(f"{hashlib.sha256((trial / name).read_bytes()).hexdigest()}  {name}\n")
    write_text(folder / CHECKSUMS, "".join(lines))


if __name__ == "__main__":
    try:
        main()
    except RunError as error:
        raise SystemExit(f"Error: {error}") from None
