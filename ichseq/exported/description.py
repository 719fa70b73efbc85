"""The files of an exported network: their names, and the description beside the graphs.

model.onnx           slices to embeddings; for torch.export .pt2 instead of .onnx
model.series.onnx    the embeddings of a series to logits
model.onnx.json      what the network is, and the hashes of both

A folder with one of them stands for it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from ichseq.documents import read_document, sealed, unsealed
from ichseq.errors import ConfigError, RunError
from ichseq.geometry import NO_SLICE_HU
from ichseq.labels import LABELS
from ichseq.model.input import BODY_HU
from ichseq.model.saved import DESCRIPTION, Description, checked_description
from ichseq.windows import WINDOWS, range_read

FORMAT: Final = 1
ONNX: Final = ".onnx"
TORCH: Final = ".pt2"
_MOST_BYTES: Final = 1 << 20


class About(NamedTuple):
    """What the description holds.

    Attributes:
        model: settings, origin, and the hash of the weights that were exported, "" where those were in no file.
        embedding: D, the length of an embedding.
        answers_exams: whether the second graph gives logits of the series too.
        digests: SHA-256 of both graphs.
    """

    model: Description
    embedding: int
    answers_exams: bool
    digests: tuple[str, str]

    def text(self) -> str:
        """As JSON, sealed; with what other programs need to know of the network."""
        config = self.model.config
        return json.dumps(sealed({
            "exported": FORMAT,
            "labels": list(LABELS),
            "windows": {name: dict(zip(("centre", "width"), WINDOWS[name], strict=True)) for name in config["windows"]},
            "hu_range": list(range_read(config["windows"])),
            "body_hu": BODY_HU,
            "no_slice_hu": NO_SLICE_HU,
            "embedding": self.embedding,
            "answers_exams": self.answers_exams,
            "config": config,
            "trained_on": self.model.trained_on,
            "weights_sha256": self.model.weights,
            "graphs_sha256": list(self.digests),
        }), indent=2)  # fmt: skip


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """Both graphs and the description of an exported network, by the path of its first graph."""
    return path, path.with_name(f"{path.stem}.series{path.suffix}"), path.with_name(f"{path.name}.json")


def exported_file(path: Path) -> Path | None:
    """The first graph of the exported network that a file, or a folder with one of them, means; None: it means none.

    Raises:
        RunError: the folder has several.
    """
    if path.suffix in (ONNX, TORCH) and not path.is_dir():
        return path
    if not path.is_dir() or (path / DESCRIPTION).is_file():
        return None
    found = [one.with_suffix("") for one in sorted(path.glob(f"*{ONNX}.json"))]
    if len(found) > 1:
        raise RunError(f"{path}: holds several exported networks; name one: {', '.join(map(str, found))}")
    return found[0] if found else None


def read_exported(path: Path) -> tuple[About, bytes, bytes]:
    """The description and both graphs, compared with their hashes.

    Raises:
        RunError: no such network, a damaged one, one of a newer version, or one that is not read here.
    """
    if path.suffix == TORCH:
        raise RunError(f"{path}: a {TORCH} is not read here, since reading one can run code that is in it; "
                       f"export the run to {ONNX}")  # fmt: skip
    *graphs, description = files_of(path)
    try:
        about = _about(read_document(description, most=_MOST_BYTES), path)
        slices, series = (graph.read_bytes() for graph in graphs)
        if about.digests != (digest_of(slices), digest_of(series)):
            raise ValueError("the graphs are not those that were written with it")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{path}: no exported network there ({Path(error.filename).name} is missing); make one with "
                       f"`ichseq export RUN -o {path}`") from None  # fmt: skip
    except OSError as error:
        raise RunError(f"{error.filename or path}: can't be read ({error.strerror})") from None
    except ConfigError as error:
        raise RunError(f"{description}: does not describe a network of this version: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        why = str(error) if type(error) is ValueError and str(error) else type(error).__name__
        raise RunError(f"{path}: is damaged ({why.splitlines()[0]}); export it again") from None
    return about, slices, series


def digest_of(graph: bytes) -> str:
    """SHA-256 of a graph's file."""
    return hashlib.sha256(graph).hexdigest()


def _about(content: Any, path: Path) -> About:
    """The content of a description, checked."""
    if content["exported"] > FORMAT:
        raise RunError(f"{path}: written by a newer ichseq; update this one (pip install -U ichseq)")
    content = unsealed(content)
    if content["labels"] != list(LABELS):
        raise RunError(f"{path}: answers for other labels; this version knows {', '.join(LABELS)} in that order")
    first, second = map(str, content["graphs_sha256"])
    return About(
        checked_description(content), int(content["embedding"]), bool(content["answers_exams"]), (first, second)
    )
