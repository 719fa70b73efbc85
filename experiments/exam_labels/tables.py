"""The tables of README.md, out of what run.py has left in FOLDER: python experiments/exam_labels/tables.py FOLDER."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichseq.evaluation.compare import auc_differences, paired_difference_of_seeds
from ichseq.evaluation.reliability import reliability
from ichseq.labels import LABEL_WEIGHTS, LABELS
from ichseq.predictions.read import read_exams, read_table
from ichseq.predictions.schema import EXAM_KEY, TRUTH

ALL = 200
WAYS = {
    "start": "the start as it is",
    "sequence": "sequence part alone, exam labels",
    "whole": "whole network, exam labels",
    "two_stage": "two stages, exam labels copied to slices",
    "all_slices": "all slice labels (the bound)",
}
ATTENTION = "attention"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(trials(folder), comparison(folder), ratios(folder), curve(folder), heads(folder), sep="\n\n")


def trials(folder: Path) -> str:
    """What was tried, on fold 0 of the second set."""
    table = pd.read_csv(folder / "trials.csv")
    chosen = json.loads((folder / "chosen.json").read_text("utf-8"))
    table["trial"] = [f"**{t}**" if chosen[w] == t else t for w, t in zip(table["way"], table["trial"], strict=True)]
    order = [*WAYS, ATTENTION]
    rows = sorted(table.to_dict("records"), key=lambda row: order.index(row["way"]))
    return markdown(
        ["Way", "Trial (the chosen one bold)", "Exam loss", "Exam AUC", "Slice loss", "Slice AUC", "Steps", "Seconds"],
        [[r["way"], r["trial"], f"{r['exam_loss']:.4f}", f"{r['exam_auc_any']:.3f}", f"{r['slice_loss']:.4f}",
          f"{r['slice_auc_any']:.3f}", str(r["steps"]), f"{r['seconds']:.0f}"] for r in rows],
    )  # fmt: skip


def comparison(folder: Path) -> str:
    """The ways on the third set: means over seeds."""
    table = pd.read_csv(folder / "final.csv")
    rows = []
    for way, name in WAYS.items():
        own = table[table["way"] == way]
        rows.append([name, *(spread(own[k]) for k in ("slice_loss", "slice_auc_any", "exam_loss", "exam_auc_any")),
                     f"{own['steps'].mean():.0f}", f"{own['seconds'].mean():.0f}"])  # fmt: skip
    return markdown(["Way", "Slice loss", "Slice AUC", "Exam loss", "Exam AUC", "Steps", "Seconds"], rows)


def ratios(folder: Path) -> str:
    """Pairs of ways: losses as shares, AUCs as differences of the first seeds, with 95 % intervals."""
    rows = []
    for one, other in (("sequence", "two_stage"), ("whole", "two_stage"), ("whole", "sequence"),
                       ("sequence", "all_slices"), ("whole", "all_slices"), ("sequence", "start"),
                       ("whole", "start")):  # fmt: skip
        row = [f"{one} / {other}"]
        first, second = ([tables_of(folder, way, seed) for seed in seeds_of(folder, way)] for way in (one, other))
        for unit, k in (("slice", 0), ("exam", 1)):
            found = paired_difference_of_seeds([t[k] for t in first], [t[k] for t in second], unit=unit)
            row.append(f"{found['ratio']:.3f} {interval(found['intervals']['ratio'])}")
        auc = auc_differences(first[0][0], second[0][0])["any"]
        row.append(f"{auc['difference']:+.4f} {interval(auc['interval'], 4)}")
        rows.append(row)
    return markdown(["Ways", "Slice loss, ratio", "Exam loss, ratio", "Slice AUC, difference (seed 0)"], rows)


def curve(folder: Path) -> str:
    """Losses by the number of exams, seed 0, of the ways that were trained with each."""
    table = pd.concat([pd.read_csv(folder / "curve.csv"), pd.read_csv(folder / "final.csv")])
    table = table[table["seed"] == 0]
    rows = []
    for count in sorted(set(table["exams"]) - {0}):
        row = [str(count)]
        for way in list(WAYS)[1:]:
            own = table[(table["exams"] == count) & (table["way"] == way)]
            figures = [f"{r.slice_loss:.4f}, {r.slice_auc_any:.3f}, {r.exam_loss:.3f}" for r in own.itertuples()]
            row.append(", ".join(figures) or "-")
        rows.append(row)
    return markdown(["Exams", *list(WAYS)[1:]], rows)


def heads(folder: Path) -> str:
    """What exams are answered with, on the third set: the exam head against the highest slice, means over seeds."""
    rows = []
    for way in ("sequence", "whole", ATTENTION):
        figures = [exam_figures(*tables_of(folder, way, seed)) for seed in seeds_of(folder, way)]
        for k, name in enumerate(("exam head", "highest slice")):
            loss, auc, error = np.mean([one[k] for one in figures], axis=0)
            rows.append([way, name, f"{loss:.4f}", f"{auc:.4f}", f"{error:.4f}"])
    return markdown(["Way", "Answer", "Exam loss", "AUC, any", "Expected calibration error, any"], rows)


def exam_figures(slices: pd.DataFrame, exams: pd.DataFrame) -> list[tuple[float, float, float]]:
    """Weighted log loss, AUC and calibration error for any; of the exam head, and of the highest slice."""
    highest = slices.groupby(list(EXAM_KEY), sort=False)[list(LABELS)].max().reset_index()
    rows = exams[list(EXAM_KEY)].merge(highest, on=list(EXAM_KEY), validate="one_to_one")
    truth = exams[list(TRUTH)].to_numpy(float)
    found = []
    for table in (exams, rows):
        score = table[list(LABELS)].to_numpy(float).clip(1e-7, 1 - 1e-7)
        losses = -np.nanmean(np.where(truth == 1, np.log(score), np.log(1 - score)), axis=0)
        auc = auc_differences(exams.assign(any=score[:, -1]), exams, unit="exam")["any"]["one"]
        error = reliability(score[:, -1], truth[:, -1])["expected_error"]
        found.append((float(np.average(losses, weights=LABEL_WEIGHTS)), auc, error))
    return found


def seeds_of(folder: Path, way: str) -> list[int]:
    """Which seeds of a way were scored on the third set."""
    table = pd.read_csv(folder / "final.csv")
    return sorted(int(seed) for seed in table.loc[table["way"] == way, "seed"])


def tables_of(folder: Path, way: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Slices and exams of the third set, as a way answers them."""
    trial = "" if way == "start" else json.loads((folder / "chosen.json").read_text("utf-8"))[way]
    (path,) = (folder / "runs" / way / trial / f"exams{ALL}-seed{seed}").glob("*/*/*/sets/third-*/predictions.parquet")
    return read_table(path), read_exams(path.with_name("exams.parquet"))


def spread(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{values.mean():.4f}" + (f" ({low:.4f} to {high:.4f})" if len(values) > 1 else "")


def interval(bounds: Any, digits: int = 3) -> str:
    return f"({bounds[0]:.{digits}f} to {bounds[1]:.{digits}f})"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
