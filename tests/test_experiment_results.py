"""The file of results: its table by hand, who is left out and why, and the comparison with a reference."""

from pathlib import Path

import pytest
import torch
from made_experiments import leave, stage, table_of

import ichseq
from ichseq.errors import ConfigError, DataError
from ichseq.experiment.results import write_results
from ichseq.runs.log import commit


def rows_of(text: str) -> list[list[list[str]]]:
    """The cells of each Markdown table."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    return [
        [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines() if "---" not in line]
        for block in blocks
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three experiments whose losses are -log of 0.8, 0.9 and 0.5."""
    folder = tmp_path / "results"
    for name, right in {"gru": 0.8, "lstm": 0.9, "none": 0.5}.items():
        leave(folder, name, table_of(right))
    return folder


def written(folder: Path, **options: str) -> str:
    out = folder.parent / "out" / "results.md"
    write_results(folder, out, **options)
    assert [path.name for path in out.parent.iterdir()] == ["results.md"]
    return out.read_text(encoding="utf-8")


def test_what_was_measured_stands_above_the_table(results: Path) -> None:
    text = written(results, command="python run.py --all", machine="one GPU")
    assert text.startswith("# Experiments")
    head = text[: text.index("| Experiment")]
    assert "\n\n    python run.py --all\n\n" in head
    assert "- Machine: one GPU\n" in head
    assert f"ichseq {ichseq.__version__}" in head
    assert f"torch {torch.__version__}" in head
    assert "timm " in head
    assert "- Data set: k1, 3,000 series\n" in head
    assert "- Scored: folds 0, 1: 5 slices, 2 exams, 2 patients\n" in head
    assert (f"- Commit: {commit()}\n" in head) == bool(commit())
    assert "Machine" not in written(results)
    assert str(results) not in text


def test_another_set_that_was_scored(tmp_path: Path) -> None:
    known = {"trained_on": "k0", "folds": [1], "recipe": "abc", "generator": "def"}
    stages = [stage("slice", 1)]
    leave(tmp_path / "results", "gru", table_of(0.8), stages=stages, **known)
    text = written(tmp_path / "results")
    head = text[: text.index("| Experiment")]
    assert "- Phantoms: made by the generator def\n" in head
    assert "- Data set: k1, 3,000 series\n" in head
    assert "- Trained on: k0, all but fold 1\n" in head
    assert "- Scored: all of it: 5 slices" in head
    assert rows_of(text)[0][1][-1] == "abc"


def test_a_row_an_experiment_the_best_one_first(results: Path) -> None:
    text = written(results)
    ((head, *rows),) = rows_of(text)
    assert [row[0] for row in rows] == ["lstm", "gru", "none"]
    assert {len(row) for row in rows} == {len(head)} == {17}
    first = dict(zip(head, rows[0], strict=True))
    assert first["Weighted log loss"] == "0.1054"
    assert first["95% interval"] == "0.1054 to 0.1054"  # both patients are alike
    # The prior answers 0.4, of five slices three bleed: (3 * -log 0.4 + 2 * -log 0.6) / 5 = 0.7541.
    assert first["Ratio to prior"] == "0.1397"
    assert first["AUC any"] == "1.0000"
    assert [first[f"AUC {label}"] for label in ("epidural", "subdural")] == ["-", "-"]
    assert first["Passes"] == "8.5"  # fold 0: 3 + 5, fold 1: 3 + 6
    assert (first["Slices trained"], first["Slices embedded"]) == ("2,000", "1,200")
    assert (first["Steps"], first["Seconds"]) == ("160", "254")
    assert "Compared" not in text
    assert "Left out" not in text
    assert "quick" not in text


def test_what_is_undefined_is_a_dash(results: Path) -> None:
    leave(results, "blend", table_of(0.95), stages=[], ratio_to_prior=None, intervals={"weighted_log_loss": None})
    text = written(results)
    assert rows_of(text)[0][1] == ["blend", "0.0513", "-", "-", *["-"] * 5, "1.0000", "-", *["-"] * 6]
    assert "None" not in text


def test_a_quick_one_is_marked_and_a_name_breaks_no_table(results: Path) -> None:
    leave(results, "a|b", table_of(0.99), quick=True)
    text = written(results)
    assert "| a\\|b (quick) | 0.0101 |" in text
    assert "\n\nQuick: a trial" in text


def test_each_is_compared_with_the_reference(results: Path) -> None:
    _, (_, *rows) = rows_of(written(results, reference="gru"))
    # -log 0.9 + log 0.8 and -log 0.5 + log 0.8, and the losses' ratios 0.10536 / 0.22314 and 0.69315 / 0.22314.
    assert rows == [
        ["lstm", "1, 1", "-0.1178", "-0.1178 to -0.1178", "0.4722", "0.4722 to 0.4722"],
        ["none", "1, 1", "0.4700", "0.4700 to 0.4700", "3.1063", "3.1063 to 3.1063"],
    ]


def test_seeds_of_a_system_are_taken_together(results: Path) -> None:
    for seed, right in enumerate((0.7, 0.75)):
        leave(results, f"joint-seed{seed}", table_of(right), system="joint")
    text = written(results, reference="joint")
    rows = rows_of(text)[1][1:]
    # -log 0.9 less the mean of -log 0.7 and -log 0.75
    assert rows[0][:3] == ["lstm", "1, 2", "-0.2168"]
    assert rows[0][3] == "-0.2513 to -0.1823"  # both seeds are drawn, or twice the same
    assert [row[0] for row in rows] == ["lstm", "gru", "none"]
    assert [row[0] for row in rows_of(text)[0][1:]] == ["lstm", "gru", "joint-seed1", "joint-seed0", "none"]
    (row,) = [row for row in rows_of(written(results, reference="gru"))[1][1:] if row[0] == "joint"]
    assert row[:3] == ["joint", "2, 1", "0.0990"]


def test_a_reference_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    leave(tmp_path / "results", "gru", table_of(0.8))
    assert "Compared" not in written(tmp_path / "results", reference="gru")


def test_those_of_other_data_or_folds_are_listed_below(results: Path) -> None:
    leave(results, "elsewhere", table_of(0.95), data_key="k2")
    leave(results, "first", table_of(0.95), folds=[0], stages=[stage("slice", 0)])
    leave(results, "fewer", table_of(0.95)[:4], n_slices=4)
    text = written(results, reference="gru")
    assert [row[0] for row in rows_of(text)[0][1:]] == ["lstm", "gru", "none"]
    assert text.endswith(
        "## Left out\n\n- elsewhere: data set k2, not k1\n- fewer: 4 slices, not 5\n- first: fold 0, not folds 0, 1\n"
    )


def test_of_equally_many_the_reference_decides(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    for name, key in {"a": "k1", "b": "k2"}.items():
        leave(folder, name, table_of(0.8), data_key=key)
    assert "- b: data set k2, not k1" in written(folder)
    assert "- a: data set k1, not k2" in written(folder, reference="b")


def test_a_reference_that_is_not_in_the_table(results: Path) -> None:
    leave(results, "elsewhere", table_of(0.95), data_key="k2")
    with pytest.raises(ConfigError, match=r"reference gpu: no such experiment in .*; there are elsewhere, gru, lstm"):
        written(results, reference="gpu")
    with pytest.raises(ConfigError, match=r"reference elsewhere: .*data set k2, not k1"):
        written(results, reference="elsewhere")


@pytest.mark.parametrize("reference", [None, "gru"])
@pytest.mark.parametrize("name", ["lstm", "gru", "elsewhere"])
def test_a_damaged_table_is_named_wherever_it_lies(results: Path, name: str, reference: str | None) -> None:
    leave(results, "elsewhere", table_of(0.95), data_key="k2")
    (results / name / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=rf"{name}/predictions\.parquet: can't be read"):
        write_results(results, results.parent / "out.md", reference=reference)
    assert not (results.parent / "out.md").exists()


def test_tables_of_other_slices_are_named(results: Path) -> None:
    leave(results, "other", table_of(0.8).assign(sop_uid=[f"X_{k}" for k in range(5)]))
    with pytest.raises(DataError, match=r"results/other and .*results/gru differ in their slices"):
        written(results, reference="gru")


def test_a_file_that_can_not_be_written(results: Path) -> None:
    with pytest.raises(DataError, match="results: can't be written"):
        write_results(results, results)
    assert not list(results.parent.glob("*.part"))


def test_the_old_file_stays_until_the_new_one_is_whole(results: Path) -> None:
    out = results / "results.md"
    write_results(results, out)
    before = out.read_bytes()
    (results / "gru" / "cost.json").unlink()
    with pytest.raises(DataError, match=r"gru/cost\.json: no such file"):
        write_results(results, out)
    assert out.read_bytes() == before
