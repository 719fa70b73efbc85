"""The demo, small: the whole road in one folder, and a page that shows it."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ichseq.cli.group import progress_bar
from ichseq.demo import run_demo
from ichseq.errors import RunError
from ichseq.labels import LABELS
from ichseq.runs.folders import leaf_of

SETTINGS = """
model: {backbone: test_resnet, pretrained: false, image_size: 32, hidden_size: 8}
train: {epochs: 1, warmup_steps: 2, workers: 1}
slice: {epochs: 2}
"""


def test_the_demo_goes_the_whole_way(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SETTINGS)
    lines: list[str] = []
    out = tmp_path / "demo"
    run_demo(out, bar=progress_bar, echo=lines.append, patients=10, size=48, fold=1, config=tmp_path / "tiny.yaml")
    histories = [pd.read_csv(leaf_of(out / "run", stage, 1) / "history.csv") for stage in ("slice", "joint")]
    assert [len(history) for history in histories] == [2, 1]
    table, exams = pd.read_csv(out / "predictions.csv"), pd.read_csv(out / "exams.csv")
    assert table["true_any"].sum() > 0, "the exam that is shown bleeds"
    for _, exam in exams.iterrows():
        own = table[table["series_uid"] == exam["series_uid"]]
        assert exam[list(LABELS)].tolist() == pytest.approx(own[list(LABELS)].max().tolist(), rel=1e-5)
    held_out = pd.read_parquet(leaf_of(out / "run", "joint", 1) / "predictions.parquet")
    assert set(table["series_uid"]) <= set(held_out["series_uid"])
    assert 0 < len(exams) <= 8
    page = (out / "index.html").read_text()
    for name in re.findall(r'src="([^"]+)"', page):
        assert (out / name).stat().st_size > 10_000
    assert page.count("<img") == 2
    assert f"--run {out / 'run'}" in page
    assert 'href="report/index.html"' in page
    work_list = (out / "report" / "index.html").read_text()
    assert work_list.count('<td class="who">') == len(exams) == len(list((out / "report" / "exams").glob("*.html")))
    assert "Weighted log loss" in "\n".join(lines)
    with pytest.raises(RunError, match="is there already"):
        run_demo(out, bar=progress_bar, echo=lines.append)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="can't be made"):
        run_demo(tmp_path / "file" / "demo", bar=progress_bar, echo=print)
