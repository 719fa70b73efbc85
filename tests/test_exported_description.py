"""The files of an exported network: found, described, and refused if they are not what was written."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from resealed import edit

from ichseq.config import ModelConfig
from ichseq.config.model import resolved
from ichseq.errors import RunError
from ichseq.exported.description import About, digest_of, exported_file, files_of, read_exported
from ichseq.labels import LABELS
from ichseq.model.saved import Description

GRAPHS = (b"one graph", b"another graph")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Files that are described, the graphs of which are none."""
    import dataclasses

    config = dataclasses.asdict(resolved(ModelConfig("test_resnet")))
    about = About(Description(config, {"phantom": True}, None, "00" * 32), 96, True, tuple(map(digest_of, GRAPHS)))  # type: ignore[arg-type]
    path = tmp_path / "network" / "model.onnx"
    path.parent.mkdir()
    *graphs, description = files_of(path)
    for file, content in zip(graphs, GRAPHS, strict=True):
        file.write_bytes(content)
    description.write_text(about.text())
    return path


def test_what_is_written_is_read(path: Path) -> None:
    about, *graphs = read_exported(path)
    assert tuple(graphs) == GRAPHS
    assert (about.embedding, about.answers_exams) == (96, True)
    assert about.model.trained_on == {"phantom": True}
    assert resolved(ModelConfig(**about.model.config)) == resolved(ModelConfig("test_resnet"))


def test_a_folder_stands_for_the_network_in_it(path: Path, tmp_path: Path) -> None:
    assert exported_file(path) == exported_file(path.parent) == path
    assert exported_file(tmp_path) is None
    assert exported_file(tmp_path / "runs" / "first") is None
    (path.parent / "model.json").touch()
    assert exported_file(path.parent) is None, "it is a model's folder then"
    (path.parent / "model.json").unlink()
    shutil.copy(files_of(path)[-1], path.parent / "other.onnx.json")
    with pytest.raises(RunError, match=r"several exported networks; name one: .*model\.onnx, .*other\.onnx"):
        exported_file(path.parent)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_that_is_missing_is_named(path: Path, number: int) -> None:
    gone = files_of(path)[number]
    gone.unlink()
    with pytest.raises(RunError, match=rf"no exported network there \({gone.name} is missing\)"):
        read_exported(path)


@pytest.mark.parametrize("number", [0, 1])
def test_a_graph_that_was_changed_is_refused(path: Path, number: int) -> None:
    files_of(path)[number].write_bytes(b"something else")
    with pytest.raises(RunError, match="the graphs are not those that were written with it"):
        read_exported(path)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"exported": 99}, "written by a newer ichseq"),
        ({"labels": list(LABELS)[::-1]}, "answers for other labels"),
        ({"graphs_sha256": ["00"]}, "is damaged"),
        ({"trained_on": {"scans": {"a": 1}}}, "is damaged"),
        ({"config": {"backbone": "test_resnet", "pretrained": "/etc/passwd"}}, "does not describe a network"),
        ({"config": {"backbone": "test_resnet", "unknown": 1}}, "does not describe a network"),
    ],
)
def test_a_description_of_something_else_is_refused(path: Path, values: dict[str, Any], why: str) -> None:
    edit(files_of(path)[-1], **values)
    with pytest.raises(RunError, match=why):
        read_exported(path)


def test_a_description_that_was_changed_is_refused(path: Path) -> None:
    description = files_of(path)[-1]
    description.write_text(description.read_text().replace('"embedding": 96', '"embedding": 97'))
    with pytest.raises(RunError, match="not what was sealed"):
        read_exported(path)


def test_a_file_that_may_run_code_is_not_read(path: Path) -> None:
    with pytest.raises(RunError, match="can run code"):
        read_exported(path.with_suffix(".pt2"))
