"""Hostile cases of what ichseq itself writes: bits of a prepared set, a model and a run changed, and each loaded."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hostile_bytes import cut, flipped, overwritten
from hostile_child import SILENT, TAKEN, Fault, rng_of, writing_only
from safetensors.torch import save

from ichseq import Model
from ichseq.config import load_config
from ichseq.config.load import read_yaml
from ichseq.data.batches import Item, read_batch
from ichseq.data.index import Index
from ichseq.data.index_files import EXAMS_SCHEMA, write_index
from ichseq.data.prepare import prepare
from ichseq.errors import RunError
from ichseq.evaluation.calibrate import calibrate_folds
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.labels import LABELS
from ichseq.phantom import write_phantoms
from ichseq.predictions.read import read_exams, read_table
from ichseq.runs.calibration import read_calibration, write_calibration
from ichseq.runs.folders import find_leaves
from ichseq.runs.patients import refuse_seen_patients
from ichseq.runs.records import data_key_of, read_history, read_run
from ichseq.training.checkpoint import read_checkpoint
from ichseq.training.train import train_stage

TINY = ("model.backbone=test_resnet", "model.pretrained=false", "model.image_size=32", "model.hidden_size=8",
        "train.epochs=1", "train.patients_per_batch=2", "train.slices_per_batch=64", "train.backbone_lr=1e-3",
        "train.sequence_lr=1e-3", "train.warmup_steps=2", "train.workers=1")  # fmt: skip
_EVALUATED_TOO = 25  # one case of a set or a run of so many is evaluated as a whole


def make_run(work: Path, seed: int) -> None:
    """Phantoms, a prepared set with labels of slices and of exams, and a run on it, evaluated and calibrated."""
    raw, data, out = work / "raw", work / "set", work / "run"
    write_phantoms(raw, patients=6, test_patients=0, size=64, seed=seed, workers=1)
    index = prepare(raw, data, folds=2, workers=1).index
    of_exams = {"series": np.arange(index.n_series)} | dict(zip(LABELS, index.exam_labels.T, strict=True))
    of_exams |= {f"agreement_{label}": np.ones(index.n_series) for label in LABELS}
    tables = (pq.read_table(data / name) for name in ("series.parquet", "slices.parquet"))
    settings = {name: index.settings[name] for name in ("folds", "seed", "source", "labels")}
    write_index(data, *tables, pa.table(of_exams).cast(EXAMS_SCHEMA), **settings)
    train_stage(load_config("joint", None, TINY), "joint", data=data, fold=0, out=out, progress=False)
    evaluate_fold(leaf_of(work), Index.load(data))
    write_calibration(leaf_of(work), calibrate_folds(leaf_of(work), 0, "platt"))


def leaf_of(work: Path) -> Path:
    """The one leaf of the run."""
    return find_leaves(work / "run")[0]


# ---- what was loaded, as a hash --------------------------------------------------------------------------------------


def load_set(work: Path) -> str:
    """Every table and every pixel of the set."""
    index = Index.load(work / "set")
    digest = hashlib.sha256()
    for name in ("lengths", "offsets", "shapes", "spacing", "fold", "patient_codes", "labels", "exam_labels",
                 "exam_labels_given", "exam_agreement", "positions_mm", "checksums"):  # fmt: skip
        digest.update(np.ascontiguousarray(getattr(index, name)).tobytes())
    found = [index.key, index.settings, *(index.series_row(i) for i in range(index.n_series))]
    found += [[index.sop_uids(i), index.files(i)] for i in range(index.n_series)]
    digest.update(repr(found).encode())
    for i in range(index.n_series):
        digest.update(read_batch(index, [Item(i)]).hu.numpy().tobytes())
    return digest.hexdigest()


def load_model(work: Path) -> str:
    """Every weight and setting of the model."""
    model = Model.load(leaf_of(work), device="cpu")
    found = repr([model.config, model.trained_on, model.sequence_share, model.weights_sha256])
    return hashlib.sha256(save(model.state_dict()) + found.encode()).hexdigest()


def load_run(work: Path) -> str:
    """What the run says of itself: its record, its calibration, its figures, its tables, its newest checkpoint."""
    leaf = leaf_of(work)
    saved = read_checkpoint(leaf / "last")
    if saved.damaged:  # which the log names; training goes on from the one before
        raise RunError(str(saved.damaged))
    found = [read_run(leaf), read_calibration(leaf).model_dump(), data_key_of(leaf), read_yaml(leaf / "config.yaml"),
            saved.state, sorted(refuse_seen_patients(leaf, Index.load(work / "set"), 0))]  # fmt: skip
    tables = [read_history(leaf), read_table(leaf / "predictions.parquet"), read_exams(leaf / "exams.parquet")]
    digest = hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode() + save(saved.tensors))
    for table in tables:
        digest.update(pd.util.hash_pandas_object(table).to_numpy().tobytes())
    return digest.hexdigest()


# ---- changes ---------------------------------------------------------------------------------------------------------


def _one_bit(data: bytes, rng: random.Random) -> bytes:
    return flipped(data, rng, most=1)


def _emptied(data: bytes, rng: random.Random) -> bytes:
    return b""


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_one_bit,) * 12, *(flipped,) * 2, *(overwritten,) * 3, *(cut,) * 2, _emptied,
)  # fmt: skip
PARTS: tuple[tuple[Callable[[Path], str], tuple[str, ...]], ...] = (
    (load_set, ("set/index.json", "set/series.parquet", "set/slices.parquet", "set/exams.parquet")),
    (load_set, ("set/store/*/*.b2nd",)),
    (load_model, ("run/joint/fold0/model.json", "run/joint/fold0/weights.safetensors")),
    (load_run, ("run/joint/fold0/run.json", "run/joint/fold0/calibration.json", "run/joint/fold0/predictions.parquet",
                "run/joint/fold0/exams.parquet", "run/joint/fold0/last/*/state.json",
                "run/joint/fold0/last/*/state.safetensors")),
)  # fmt: skip
"""What loads which files. Those that a person may edit or only reads (config.yaml, history.csv, metrics.json, log.txt,
left_out.csv) are not among them."""


class Flips:
    """A file of a set, a model or a run changed, and loaded by what uses it."""

    ground = "run"
    make = staticmethod(make_run)

    def __init__(self, work: Path, seed: int) -> None:
        self.seed, self.work = seed, work / "copy"
        shutil.rmtree(self.work, ignore_errors=True)
        for name in ("set", "run"):
            shutil.copytree(work / name, self.work / name)
        self.truth = {load: load(self.work) for load, _ in PARTS}

    def __call__(self, number: int) -> str:
        rng = rng_of(self.seed, "flips", number)
        load, patterns = PARTS[number % len(PARTS)]
        file = rng.choice(sorted(path for pattern in patterns for path in self.work.glob(pattern)))
        sound = file.read_bytes()
        changed = rng.choice(CHANGES)(sound, rng)
        file.write_bytes(changed)
        try:
            with writing_only():
                same = load(self.work) == self.truth[load]
            if same and number % _EVALUATED_TOO == 0:
                with writing_only(leaf_of(self.work)):
                    same = self._evaluated()
        finally:
            file.write_bytes(sound)
        if not same and changed != sound:
            raise Fault(SILENT, f"{file.relative_to(self.work)} was changed, and what was loaded too")
        return TAKEN

    def _evaluated(self) -> bool:
        """Whether the run, with the changed file, answers as it did."""
        leaf = leaf_of(self.work)
        before: Any = {name: (leaf / name).read_bytes() for name in ("predictions.parquet", "exams.parquet")}
        answers = read_table(leaf / "predictions.parquet")
        evaluate_fold(leaf, Index.load(self.work / "set"))
        again = read_table(leaf / "predictions.parquet")
        for name, content in before.items():
            (leaf / name).write_bytes(content)
        return bool(answers.equals(again))
