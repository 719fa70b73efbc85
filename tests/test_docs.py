"""The pages: their Python runs as it stands, and the notebook goes the whole way."""

import re
import shutil
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from conftest import tiny_sections
from nbclient import NotebookClient

from ichseq.phantom.bleeding import draw_kinds

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/how-to.md")
BLOCKS = [
    pytest.param(block, id=f"{page} {number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S), 1)
]
TOUR = ROOT / "docs" / "tour.ipynb"


@pytest.fixture
def workplace(phantoms: Path, prepared: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages take to be there: scans, a set, a run and small settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("my_new_scans", "path/to/scan"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(phantoms / "stage_2_test")
    shutil.copytree(run, tmp_path / "runs" / "first")
    (tmp_path / "data").mkdir()
    (tmp_path / "ichseq").mkdir()
    (tmp_path / "ichseq" / "small.yaml").write_text(yaml.safe_dump(tiny_sections()))
    return tmp_path


@pytest.mark.filterwarnings("ignore:these weights")
@pytest.mark.parametrize("block", BLOCKS)
def test_the_python_of_a_page_runs(block: str, workplace: Path, phantoms: Path, prepared: Path) -> None:
    if "ichseq.prepare(" in block:
        with zipfile.ZipFile(workplace / "data" / "rsna.zip", "w") as archive:
            for path in phantoms.rglob("*"):
                archive.write(path, path.relative_to(phantoms))
    else:
        (workplace / "data" / "prepared").symlink_to(prepared)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(block, "a page", "exec"), names)
    assert "ichseq" in names


def test_the_sample_scan_of_the_first_command_bleeds() -> None:
    (seed,) = re.findall(r"^ichseq phantom sample --patients 1 .*--seed (\d+)", (ROOT / "README.md").read_text(), re.M)
    assert draw_kinds(int(seed), 0, 0)


def test_the_pages_have_python() -> None:
    assert len(BLOCKS) >= 4


def test_the_notebook_goes_the_whole_way(tmp_path: Path) -> None:
    notebook = nbformat.read(TOUR, 4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    smaller = re.sub(r"= Path\(.*$", '= Path("tour"), 10, 48, 1', parameters.source, flags=re.M)
    assert smaller != parameters.source
    parameters.source = smaller
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    done = client.execute()
    shown = {kind for cell in done.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= shown
    assert "Weighted log loss" in "".join(o.get("text", "") for c in done.cells for o in c.get("outputs", []))
    assert (tmp_path / "tour" / "run" / "joint" / "fold0" / "metrics.json").is_file()


def test_the_notebook_is_kept_without_paths_times_and_warnings() -> None:
    notebook = nbformat.read(TOUR, 4)
    nbformat.validate(notebook)
    assert TOUR.stat().st_size < 300_000
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    words = "\n".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in outputs)
    assert not re.search(r"/tmp|/home|/work|Warning|\bseconds\b|it/s", words)
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert not any("execution" in cell.metadata for cell in notebook.cells)
