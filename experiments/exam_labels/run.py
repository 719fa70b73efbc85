"""How far exam labels go: ways to train on them, tried, chosen, trained with several seeds and scored on a set apart.

    python experiments/exam_labels/run.py FOLDER [--jobs 2] [--to sets|start|trials|final|curve]

What is there is not done again, so a run that was stopped goes on. FOLDER gets raw/, prepared/, runs/ and trials.csv,
final.csv, curve.csv, chosen.json. Choices are made by the slices' log loss on fold 0 of the second set, 50 exams whose
slices' labels serve for nothing else; the third set is read in the step `final`, once.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

import ichseq
from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.labels import LABEL_WEIGHTS, LABELS
from ichseq.phantom import write_phantoms

sys.path.append(str(Path(__file__).parents[1]))
from rows import rows_of

HERE = Path(__file__).parent
PLAN = yaml.safe_load((HERE / "ways.yml").read_text(encoding="utf-8"))
EXAMS = (25, 50, 100, 200)  # of the curve; the last is the training part of fold 0
SEEDS = {"final": (0, 1, 2), "curve": (0,)}


def make_sets(folder: Path) -> None:
    """Phantoms, prepared; of the second set copies with its exams' labels alone, for all exams or some."""
    for name, wanted in PLAN["sets"].items():
        raw, out = folder / "raw" / name, folder / "prepared" / name
        if not (raw / "stage_2_train.csv").exists():
            write_phantoms(raw, test_patients=0, **wanted)
        ichseq.prepare(raw, out, progress=False)
    index = Index.load(folder / "prepared" / "second")
    for count in EXAMS:
        for labels in ("exams", "copied", "slices"):
            if (out := set_of(folder, labels, count)) == folder / "prepared" / "second" or out.exists():
                continue
            table = label_table(index, labels, count)
            path = folder / "labels" / f"{out.name}.csv"
            path.parent.mkdir(exist_ok=True)
            table.to_csv(path, index=False)
            beside = out.with_name(f"{out.name}.making")
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(folder / "prepared" / "second", beside, ignore=shutil.ignore_patterns("embeddings"))
            ichseq.prepare(folder / "raw" / "second", beside, labels=path, progress=False)  # patients keep their fold
            beside.rename(out)


def set_of(folder: Path, labels: str, count: int) -> Path:
    """The second set with some kind of labels for so many of its training exams."""
    if labels == "slices" and count == EXAMS[-1]:
        return folder / "prepared" / "second"
    return folder / "prepared" / f"second_{labels}_{count}"


def label_table(index: Index, labels: str, count: int) -> pd.DataFrame:
    """Labels of so many training exams, of few ones a part of more, and of all exams that are kept for validation."""
    training = index.training_series(0)
    order = sorted(training, key=lambda i: index.series_row(int(i))["study_uid"])  # UIDs are as good as drawn
    rows = []
    for i in sorted({*map(int, order[:count]), *map(int, index.validation_series(0))}):
        exam = dict(zip(LABELS, index.exam_labels[i], strict=True))
        if labels == "exams":
            rows.append({"study_uid": index.series_row(i)["study_uid"], **exam})
            continue
        for k, uid in enumerate(index.sop_uids(i)):
            own = dict(zip(LABELS, index.labels[index.offsets[i] + k], strict=True))
            rows.append({"sop_uid": uid, **(exam if labels == "copied" else own)})
    return pd.DataFrame(rows)


def trained(folder: Path, name: str, trial: dict[str, Any], *, seed: int = 0, count: int = EXAMS[-1]) -> Path:
    """Train the steps of a trial from the start, unless that was done; the leaf of the last."""
    run, leaf = folder / "runs" / name / f"exams{count}-seed{seed}", None
    first = "first" if name == "start" else None
    for stage, labels in trial["steps"].items():
        out = run / f"{stage}-{labels}"
        fold = ALL_PATIENTS if first else 0
        leaf_of_step = out / stage / ("all-patients" if first else "fold0")
        if not (leaf_of_step / "done.json").exists():
            shutil.rmtree(out, ignore_errors=True)
            data = folder / "prepared" / first if first else set_of(folder, labels, count)
            init = leaf if leaf is not None else None if first else start_of(folder)
            began = time.monotonic()
            ichseq.train(stage, "all-patients" if first else fold, config=settings_of(trial), data=data, out=out,
                         init=init, settings={"train.seed": seed}, progress=False)  # fmt: skip
            history = pd.read_csv(leaf_of_step / "history.csv")
            done = {"seconds": time.monotonic() - began, "steps": int(history["step"].max())}
            (leaf_of_step / "done.json").write_text(json.dumps(done), encoding="utf-8")
        leaf = leaf_of_step
    assert leaf is not None
    return leaf


def start_of(folder: Path) -> Path:
    """The start's leaf."""
    return folder / "runs" / "start" / f"exams{EXAMS[-1]}-seed0" / "joint-slices" / "joint" / "all-patients"


def settings_of(trial: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of a trial: the base's, and its own over it."""
    merged = {section: dict(values) for section, values in PLAN["base"].items()}
    for section, values in trial["settings"].items():
        merged.setdefault(section, {}).update(values)
    return merged


def figures(leaf: Path, data: Path, fold: int | None) -> dict[str, Any]:
    """A run's figures on a fold, or on all of a set; and what its last step and those before it cost."""
    metrics = ichseq.evaluate(leaf, fold, data=data, progress=False).metrics
    steps = [json.loads(path.read_text("utf-8")) for path in sorted(leaf.parents[2].glob("*/*/*/done.json"))]
    return {
        "slice_loss": metrics["weighted_log_loss"],
        "slice_auc_any": metrics["labels"]["any"]["auc"],
        **{f"slice_auc_{label}": metrics["labels"][label]["auc"] for label in LABELS[:5]},
        "exam_loss": exam_loss(metrics),
        "exam_auc_any": metrics["exam"]["auc_any"],
        "exam_error_any": metrics["by_exam"]["any"]["reliability"]["expected_error"],
        "steps": sum(one["steps"] for one in steps),
        "seconds": round(sum(one["seconds"] for one in steps), 1),
    }


def exam_loss(metrics: dict[str, Any]) -> float:
    """The log loss of exams, weighted by label as that of slices is."""
    return float(np.average([metrics["by_exam"][label]["log_loss"] for label in LABELS], weights=LABEL_WEIGHTS))


def tried(folder: Path, way: str, trial: str) -> dict[str, Any]:
    """One trial, scored on fold 0 of the second set."""
    torch.set_num_threads(1)
    leaf = trained(folder, f"{way}/{trial}", PLAN["ways"][way][trial])
    return {"way": way, "trial": trial, **figures(leaf, folder / "prepared" / "second", 0)}


def finished(folder: Path, way: str, trial: str, exams: int, seed: int) -> dict[str, Any]:
    """One training of a chosen trial, or the start as it is, scored on the third set."""
    torch.set_num_threads(1)
    if way == "start":
        leaf = start_of(folder)
    else:
        leaf = trained(folder, f"{way}/{trial}", PLAN["ways"][way][trial], seed=seed, count=exams)
    row = figures(leaf, folder / "prepared" / "third", None)
    return {"way": way, "trial": trial, "exams": exams, "seed": seed, **row}


def choices(trials: pd.DataFrame) -> dict[str, str]:
    """The trial of each way with the lowest loss of slices."""
    return {str(way): str(rows.loc[rows["slice_loss"].idxmin(), "trial"]) for way, rows in trials.groupby("way")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--to", choices=["sets", "start", "trials", "final", "curve"], default="curve")
    asked = parser.parse_args()
    folder, until = asked.folder, ["sets", "start", "trials", "final", "curve"].index(asked.to)
    make_sets(folder)
    if until < 1:
        return
    trained(folder, "start", PLAN["start"])
    if until < 2:
        return
    every = [{"way": way, "trial": trial} for way in PLAN["ways"] for trial in PLAN["ways"][way]]
    chosen = choices(rows_of(folder / "trials.csv", tried, every, folder, asked.jobs))
    (folder / "chosen.json").write_text(json.dumps(chosen, indent=2), encoding="utf-8")
    for step, counts, name in ((3, EXAMS[-1:], "final"), (4, EXAMS[:-1], "curve")):
        if until < step:
            return
        ways = chosen if name == "final" else {way: chosen[way] for way in ("sequence", "whole", "two_stage")}
        wanted = [{"way": way, "trial": trial, "exams": count, "seed": seed}
                  for seed in SEEDS[name] for count in counts for way, trial in ways.items()]  # fmt: skip
        if name == "final":
            wanted.append({"way": "start", "trial": "start", "exams": 0, "seed": 0})
        rows_of(folder / f"{name}.csv", finished, wanted, folder, asked.jobs)


if __name__ == "__main__":
    main()
