"""Who imports whom: the order of the house, and that docs/architecture.md draws it as it is."""

import ast
import re
from pathlib import Path

import pytest

import ichseq

PACKAGE = Path(ichseq.__file__).parent
DOCUMENT = PACKAGE.parent / "docs" / "architecture.md"
ORDER = [
    "errors",
    "files",
    "pseudonyms",
    "documents",
    "workers",
    "labels",
    "windows",
    "seeds",
    "geometry",
    "appearance",
    "devices",
    "networks",
    "config",
    "cluster",
    "predictions",
    "ct",
    "phantom",
    "data",
    "model",
    "exported",
    "runs",
    "training",
    "inference",
    "html_report",
    "dicom_results",
    "evaluation",
    "publishing",
    "experiment",
    "api",
    "demo",
    "cli",
]
WITHOUT_TORCH = {
    "errors", "files", "pseudonyms", "documents", "workers", "labels", "windows", "seeds", "networks", "config",
    "predictions", "ct", "phantom"
}  # fmt: skip
GROUND_FLOOR = {
    "errors",
    "files",
    "pseudonyms",
    "documents",
    "workers",
    "labels",
    "windows",
    "seeds",
    "geometry",
    "appearance",
    "devices",
    "networks",
    "config",
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def parts_imported(path: Path) -> set[str]:
    parts = {name.split(".")[1] for name in imported(path) if name.startswith("ichseq.")}
    return (parts & set(ORDER)) - {part_of(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_those_before_it(path: Path) -> None:
    part = part_of(path)
    assert not any(name.startswith(".") for name in imported(path)), "relative imports hide who imports whom"
    assert parts_imported(path) <= set(ORDER[: ORDER.index(part)])
    if part == "model":  # so that other code can lift the network out
        assert parts_imported(path) <= GROUND_FLOOR
    if part in WITHOUT_TORCH:
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"torch", "torchvision", "timm", "kornia", "accelerate", "safetensors"}


def test_the_document_draws_the_imports_as_they_are() -> None:
    actual: dict[str, set[str]] = {part: set() for part in ORDER}
    for path in FILES:
        actual[part_of(path)] |= parts_imported(path)
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\w, -]+) \|$", text, re.MULTILINE)
    assert {part: set(re.findall(r"\w+", names)) for part, names in rows} == actual
    arrows = set(re.findall(r"^ +(\w+) --> (\w+)$", text, re.MULTILINE))
    assert arrows == {(part, other) for part in ORDER for other in actual[part] - GROUND_FLOOR}
