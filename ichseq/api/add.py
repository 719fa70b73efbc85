"""add_network: a network that was published in another form, as a folder that ichseq loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ichseq.model import Model


@dataclass(frozen=True)
class Added:
    """A network that was added.

    Attributes:
        folder: with weights.safetensors, model.json and README.md, the card that came with it.
        remarks: what was left out of it, and what a person should know, a line each.
    """

    folder: Path
    remarks: list[str]


def add_network(source: str | Path, out: str | Path | None = None) -> Added:
    """Make an ichseq network of one that was published in another form; every tensor is used, or named as left out.

    Known is the form of ianpan/ct-head-hemorrhage-detection. Only tensors and text are read, and nothing is executed.

    Args:
        source: hf-hub:owner/name, with or without @revision, or a folder with its files.
        out: the folder to make; None: runs/<name of the source>.

    Raises:
        RunError: it can't be fetched or read, has tensors more or fewer than that form, or the folder is taken.

    Example:
        >>> import ichseq
        >>> done = ichseq.add_network("hf-hub:ianpan/ct-head-hemorrhage-detection")  # doctest: +SKIP
        >>> table = ichseq.predict(done.folder, "scans")  # doctest: +SKIP
    """
    from ichseq.errors import RunError
    from ichseq.files import is_taken
    from ichseq.model.imported import CLASSIFIER, LAYOUT, SEQUENCE, SETTINGS, import_network
    from ichseq.networks import hub
    from ichseq.networks.named import licence_in, licence_words, name_of, text_of

    folder, name = Path(source), Path(source).name
    if hub.is_hub_name(source):
        name = hub.repository_of(Path(source).as_posix()).rpartition("/")[2]
        files = {SETTINGS: 1 << 20, CLASSIFIER: 4 << 30, SEQUENCE: 1 << 30, hub.CARD: 1 << 20}
        needed = (SETTINGS, CLASSIFIER, SEQUENCE)
        otherwise = "no network of a form that is known; name one of the form of ianpan/ct-head-hemorrhage-detection"
        folder = hub.fetched_files(Path(source).as_posix(), files, needed, otherwise)
    out = Path("runs") / name if out is None else Path(out)
    if is_taken(out):
        raise RunError(f"{out}: is there already; choose another folder with -o")
    done = import_network(folder)
    card = text_of(folder / hub.CARD)
    origin = name_of(folder) if hub.is_fetched(folder) else f"files of the form {LAYOUT}"
    licence = licence_in(card)
    done.model.trained_on = {
        "imported_from": origin,
        "licence": licence,
        "scans": f"what its authors say on its card: {out.name}/README.md",
        "answers_with": "sequence",
        "phantom": False,
        "left_out": done.left_out,
    }
    _write(done.model, out, card or f"# {origin}\n\nIt came without a model card.\n")
    stated = [] if licence else [licence_words(None)]
    return Added(out, [*(f"left out: {line}" for line in done.left_out), *stated])


def _write(model: Model, out: Path, card: str) -> None:
    from ichseq.errors import RunError
    from ichseq.files import replacing
    from ichseq.networks.hub import CARD

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as beside:
            model.save(beside)
            (beside / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{out}: can't be written ({error.strerror}); make room, or choose another") from None
