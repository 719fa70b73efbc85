"""What a run writes is read back, and what is missing or damaged is named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from five_slices import five_slices
from resealed import edit

from ichseq.errors import RunError
from ichseq.runs.records import (
    data_key_of,
    read_history,
    read_json,
    read_predictions,
    read_run,
    write_json,
    write_scored,
)


@pytest.fixture
def leaf(tmp_path: Path) -> Path:
    folder = tmp_path / "joint" / "fold3"
    folder.mkdir(parents=True)
    write_json(
        folder / "run.json", {"stage": "joint", "fold": 3, "patients": ["a"], "data_key": "trained on"}, sealed=True
    )
    return folder


def test_json_is_strict_and_appears_whole(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError):
        write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == read_json(file) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"a": NaN}', '{"a": 1e999}', '"text"', "[" * 100_000])
def test_json_that_is_damaged_is_named_with_its_remedy(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "some.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RunError, match=r"some\.json: can't be read \(\w+\); do something"):
        read_json(file, "do something")


def test_the_weights_of_an_epoch_are_of_the_leafs_run(leaf: Path) -> None:
    assert read_run(leaf / "epochs" / "epoch-001") == read_run(leaf)


def test_a_run_whose_fold_or_patients_were_changed_is_refused(leaf: Path) -> None:
    file = leaf / "run.json"
    sound = file.read_text()
    for change in (("3,", "1,"), ('"a"', '"b"'), ("joint", "slice")):
        file.write_text(sound.replace(*change, 1))
        with pytest.raises(RunError, match=r"fold3: run.json can't be read \(it is not as a run has written it\)"):
            read_run(leaf)
    file.write_text(sound.replace("\n", "").replace("  ", " "))  # the layout is no content
    assert read_run(leaf)["fold"] == 3


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", "[" * 100_000, '{"fold": 1e999}'])
def test_a_damaged_run_is_named(leaf: Path, content: str | None) -> None:
    (leaf / "run.json").unlink()
    if content is not None:
        (leaf / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"fold3: run.json can't be read"):
        read_run(leaf)


@pytest.mark.parametrize(
    "values", [{"fold": "3"}, {"fold": True}, {"patients": 7}, {"patients": [[]]}, {"stage": None}]
)
def test_a_run_that_says_what_no_run_does_is_named_though_it_is_sealed(leaf: Path, values: dict[str, Any]) -> None:
    edit(leaf / "run.json", **values)
    with pytest.raises(RunError, match=r"fold3: run.json can't be read"):
        read_run(leaf)


def test_a_history_is_read_or_named(leaf: Path) -> None:
    with pytest.raises(RunError, match=r"history\.csv: can't be read"):
        read_history(leaf)
    (leaf / "history.csv").write_text("epoch,step\n1,10\n2,20\n")
    assert list(read_history(leaf)["step"]) == [10, 20]
    (leaf / "history.csv").write_text("")
    with pytest.raises(RunError, match=r"history\.csv: can't be read"):
        read_history(leaf)


def test_predictions_and_their_set(leaf: Path) -> None:
    with pytest.raises(RunError, match=r"no predictions.parquet; run `ichseq evaluate --fold 3 --run .*fold3` first"):
        read_predictions(leaf)
    assert data_key_of(leaf) == "trained on"
    table = five_slices(truth=[0, 1, 0, 1, 1])
    write_scored(leaf, table, {"data_key": "scored on"})
    pd.testing.assert_frame_equal(read_predictions(leaf), table, check_dtype=False)
    assert data_key_of(leaf) == "scored on"
    (leaf / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match=r"metrics\.json: can't be read .*; run `ichseq evaluate` again"):
        data_key_of(leaf)
