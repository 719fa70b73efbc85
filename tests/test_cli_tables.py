"""ichseq compare, ensemble and submit, on a trained run and on small tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from five_slices import five_slices

from ichseq.cli import main
from ichseq.evaluation.metrics import evaluate_table
from ichseq.labels import LABELS
from ichseq.predictions.read import read_table
from ichseq.predictions.write import write_table

ON_LABELS = list(LABELS)


def invoke(*command: object) -> Result:
    return CliRunner().invoke(main, [str(part) for part in command])


def done(*command: object) -> str:
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_two_runs_compared(scored: Path, tmp_path: Path) -> None:
    printed = done("compare", scored, scored, "-o", tmp_path / "c.json")
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["slices"]["difference"] == found["exams"]["difference"] == 0
    assert found["exams"]["n_exams"] == 4
    assert found["slices"]["auc"]["any"]["p"] == 1
    assert "exams, weighted log loss: one" in printed
    table = pd.concat([pd.read_parquet(scored / "joint" / f"fold{k}" / "predictions.parquet") for k in (0, 1)])
    table[ON_LABELS] = 0.5
    write_table(table, tmp_path / "half.csv")
    printed = done("compare", scored, tmp_path / "half.csv", "-o", tmp_path / "c.json")
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["slices"]["other"] == pytest.approx(np.log(2))
    assert found["exams"] is None
    assert f"exams: undefined, no table of exams of {tmp_path / 'half.csv'}" in printed


def test_a_run_blended_with_a_table_is_scored_with_the_runs_prior(scored: Path, tmp_path: Path) -> None:
    whole = pd.concat([pd.read_parquet(scored / "joint" / f"fold{k}" / "predictions.parquet") for k in (0, 1)])
    other = whole.sample(frac=1, random_state=0)
    other[ON_LABELS] = other[ON_LABELS] ** 2
    write_table(other, tmp_path / "other.csv")
    printed = done(
        "ensemble", scored, tmp_path / "other.csv", "--weights", "3,1", "-o", tmp_path / "new" / "blend.parquet"
    )
    table = read_table(tmp_path / "new" / "blend.parquet")
    expected = 0.75 * whole[ON_LABELS].to_numpy() + 0.25 * whole[ON_LABELS].to_numpy() ** 2
    assert np.allclose(table[ON_LABELS], np.clip(expected, 1e-5, 1 - 1e-5), rtol=0, atol=1e-6)
    assert list(table["sop_uid"]) == list(whole["sop_uid"])
    assert f"{evaluate_table(table, None)['weighted_log_loss']:.4f}" in printed
    assert "no training prevalence" not in printed
    assert printed.rstrip().endswith(f"{len(table)} slices of 4 series: {tmp_path / 'new' / 'blend.parquet'}")
    # A run alone, and its leaf blended with itself, are what evaluate scored.
    for leaf in ([scored], [scored, scored]):
        done("ensemble", *leaf, "-o", tmp_path / "same.parquet", "--clip", "0")
        assert np.allclose(read_table(tmp_path / "same.parquet")[ON_LABELS], whole[ON_LABELS], rtol=0, atol=1e-12)


def test_smoothing_and_clip_by_hand(tmp_path: Path) -> None:
    write_table(five_slices("aacbb", [0, 1, 0, 0, 1], patients="ppqpp"), tmp_path / "t.csv")
    for options, expected in (
        ([], [0.1, 0.4, 0.7, 0.2, 0.9]),
        (["--smooth", "mean"], [0.25, 0.25, 0.7, 0.55, 0.55]),
        (["--smooth", "mean", "--by", "patient"], [0.25, 0.7 / 3, 0.7, 0.5, 0.55]),
        (["--smooth", "weighted", "--by", "patient"], [0.25, 0.3, 0.7, 0.38, 0.55]),
        (["--clip", "0.3"], [0.3, 0.4, 0.7, 0.3, 0.7]),
    ):
        printed = done("ensemble", tmp_path / "t.csv", "-o", tmp_path / "out.csv", *options)
        assert np.allclose(read_table(tmp_path / "out.csv")["any"], expected, rtol=0, atol=1e-7), options
        assert printed == f"5 slices of 3 series: {tmp_path / 'out.csv'}\n"  # without truth, nothing is scored


def test_without_a_run_the_prior_is_a_dash(tmp_path: Path) -> None:
    write_table(five_slices(truth=[0, 0, 1, 0, 1]), tmp_path / "t.csv")
    printed = done("ensemble", tmp_path / "t.csv", "-o", tmp_path / "out.csv")
    assert "no training prevalence of any" in printed
    assert "Weighted log loss" in printed


def test_phantoms_predicted_and_submitted(run: Path, phantoms: Path, tmp_path: Path) -> None:
    sample = phantoms / "stage_2_sample_submission.csv"
    done("predict", phantoms / "stage_2_test", "--run", run, "-o", tmp_path / "p.csv")
    done("ensemble", tmp_path / "p.csv", "-o", tmp_path / "smooth.parquet", "--smooth", "weighted")
    out = tmp_path / "submission.csv"
    printed = done("submit", tmp_path / "smooth.parquet", "--sample", sample, "-o", out)
    read, asked = pd.read_csv(out), pd.read_csv(sample)
    assert printed == f"{len(asked)} rows: {out}\n"
    assert list(read["ID"]) == list(asked["ID"])
    wide = read_table(tmp_path / "smooth.parquet").melt("sop_uid", ON_LABELS, "label", "p")
    expected = pd.Series(wide["p"].to_numpy(), index=wide["sop_uid"] + "_" + wide["label"])[asked["ID"]]
    assert np.allclose(read["Label"], expected.clip(1e-5, 1 - 1e-5), rtol=0, atol=1e-7)


CASES = [
    (["ensemble", "{tmp}/t.csv", "{tmp}/short.csv", "-o", "{tmp}/o.csv"], "short.csv differ in their slices: 1 of 5"),
    (["ensemble", "{tmp}/t.csv", "-o", "{tmp}/o.csv", "--weights", "1,x"], "--weights is '1,x'"),
    (["ensemble", "{tmp}/t.csv", "-o", "{tmp}/o.csv", "--weights", "1,1"], "2 for 1 table"),
    (["ensemble", "{tmp}/t.csv", "-o", "{tmp}/o.csv", "--clip", "0.7"], "clipping at 0.7"),
    (["compare", "{tmp}/t.csv", "{tmp}/short.csv"], "short.csv: no slice with a known label; no table of exams of "),
    (["compare", "{tmp}/t.csv", "{tmp}/absent"], "absent: no such run"),
    (["compare", "{scored}", "{scored}/joint/fold0"], "are of different folds"),
    (["ensemble", "{tmp}/absent", "-o", "{tmp}/o.csv"], "absent: no such run"),
    (["ensemble", "{run}", "-o", "{tmp}/o.csv"], "run `ichseq evaluate --fold 0"),
    (["ensemble", "{scored}", "{scored}/joint/fold0", "-o", "{tmp}/o.csv"], "are of different folds"),
    (["submit", "{tmp}/t.csv", "--sample", "{tmp}/absent.csv", "-o", "{tmp}/o.csv"], "absent.csv: no such file"),
    (["submit", "{tmp}/t.csv", "--sample", "{tmp}/t.csv", "-o", "{tmp}/o.csv"], "a sample submission has ID, Label"),
    (["submit", "{tmp}/t.csv", "--sample", "{sample}", "-o", "{tmp}/o.csv"], "have no prediction"),
    (["submit", "{tmp}/t.csv", "--sample", "{sample}", "-o", "{tmp}/o.parquet"], "a submission is CSV"),
]


@pytest.mark.parametrize(("command", "words"), CASES)
def test_a_mistake_is_one_line_and_writes_nothing(
    command: list[str], words: str, run: Path, scored: Path, phantoms: Path, tmp_path: Path
) -> None:
    write_table(five_slices(), tmp_path / "t.csv")
    write_table(five_slices()[:4], tmp_path / "short.csv")
    sample = phantoms / "stage_2_sample_submission.csv"
    result = invoke(*(part.format(tmp=tmp_path, run=run, scored=scored, sample=sample) for part in command))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert "unexpected" not in result.stderr
    assert words in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "short.csv"}
