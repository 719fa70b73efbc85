"""Phantoms laid out as CQ500 is: a folder an exam with a thin and a thick series, and a reads.csv of three readers.

    python experiments/exam_labels/cq500_like.py PHANTOMS OUT [--wrong 0.05]

PHANTOMS is what `ichseq phantom` has written. The thick series has every second slice. A reader is wrong about a
finding in the share of exams that --wrong states, drawn from a fixed seed; the columns and PatientIDs are those of
CQ500 (Chilamkurthy and others, Lancet 2018; its table as published).
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom.uid import generate_uid

import ichseq

FINDINGS = {"IPH": "intraparenchymal", "IVH": "intraventricular", "SDH": "subdural", "EDH": "epidural",
            "SAH": "subarachnoid"}  # fmt: skip
OTHERS = ("BleedLocation-Left", "BleedLocation-Right", "ChronicBleed", "Fracture", "CalvarialFracture", "OtherFracture",
          "MassEffect", "MidlineShift")  # fmt: skip


def write_exam(series: ichseq.Series, folder: Path, name: str) -> None:
    """The slices of a series as two series of one study, under another patient's id."""
    thick_uid = generate_uid(entropy_srcs=[series.series_uid, "thick"])
    for k, file in enumerate(series.files):
        dataset = pydicom.dcmread(file)
        dataset.PatientID = dataset.PatientName = name
        dataset.SeriesDescription = "CT PLAIN THIN"
        save(dataset, folder / "CT PLAIN THIN" / f"CT{k:06d}.dcm")
        if k % 2 == 0:
            dataset.SeriesInstanceUID, dataset.SeriesDescription = thick_uid, "CT Plain"
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series.sop_uids[k], "thick"])
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            save(dataset, folder / "CT Plain" / f"CT{k // 2:06d}.dcm")


def save(dataset: pydicom.Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--wrong", type=float, default=0.05)
    asked = parser.parse_args()
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE  # phantoms' UIDs are RSNA 2019's names
    table = pd.read_csv(asked.phantoms / "stage_2_train.csv")
    table[["sop_uid", "label"]] = table["ID"].str.rsplit("_", n=1, expand=True)
    truth = table.pivot(index="sop_uid", columns="label", values="Label")
    generator = np.random.default_rng(0)
    columns = ["name", "Category", *(f"R{r}:{what}" for r in (1, 2, 3) for what in ("ICH", *FINDINGS, *OTHERS))]
    rows = []
    scans = ichseq.load_series(asked.phantoms / "stage_2_train")
    for number, series in enumerate(scans):
        name = f"CQ500-CT-{number}"
        write_exam(series, asked.out / f"CQ500CT{number} CQ500CT{number}" / "Unknown Study", name)
        bleeds = truth.reindex(series.sop_uids).max() == 1
        row = {"name": name, "Category": "B1"}
        for reader in (1, 2, 3):
            seen = {short: bleeds[label] != (generator.random() < asked.wrong) for short, label in FINDINGS.items()}
            answers = {"ICH": any(seen.values()), **seen, **dict.fromkeys(OTHERS, False)}
            row |= {f"R{reader}:{what}": int(answer) for what, answer in answers.items()}
        rows.append(row)
    with (asked.out / "reads.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} exams in {asked.out}; next: ichseq prepare {asked.out} --labels {asked.out / 'reads.csv'}")


if __name__ == "__main__":
    main()
