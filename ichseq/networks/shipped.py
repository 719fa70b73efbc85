"""The networks that ship with ichseq: their names, where they lie, and whether they are as they were packed.

    ichseq/networks/<name>/    weights.safetensors (in half precision) and model.json, as `Model.save` writes them
                               SHA256, the checksums of both, for `sha256sum -c` as well
                               CARD.md, the model card; NOTICE, what the licences want of what it was made from

experiments/shipped/pack.py makes such a folder of a run.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ichseq.errors import RunError

DEFAULT: Final = "phantom-1"
"""The network that predicts where no other is named."""

CARD: Final = "CARD.md"
NOTICE: Final = "NOTICE"
CHECKSUMS: Final = "SHA256"

# As `Model.save` calls them; tests/test_networks.py sees that they agree.
WEIGHTS: Final = "weights.safetensors"
DESCRIPTION: Final = "model.json"

_PLACE = Path(__file__).resolve().parent
_AGAIN: Final = "install it again: pip install --force-reinstall --no-deps ichseq"


def shipped_names() -> list[str]:
    """Names of the networks that ship, sorted."""
    return sorted(path.parent.name for path in _PLACE.glob(f"*/{CARD}"))


def shipped_folder(name: str | Path) -> Path | None:
    """The folder of the network that a name, or a path to that folder, means; None: it means no network that ships.

    Where there is a file or a folder of that name, it is meant.

    Example:
        >>> from ichseq.networks.shipped import shipped_folder
        >>> shipped_folder("runs/first") is None
        True
    """
    path = Path(name)
    if path.exists():
        return path if path.is_dir() and is_shipped(path) else None
    return _PLACE / path if str(path) in shipped_names() else None


def is_shipped(folder: Path) -> bool:
    """Whether a folder is that of a network that ships."""
    return folder.resolve().parent == _PLACE


def default_network() -> Path:
    """The folder of `DEFAULT`, whatever folders of that name there are elsewhere.

    Raises:
        RunError: this copy of ichseq came without it.
    """
    if DEFAULT not in shipped_names():
        raise RunError(f"this copy of ichseq has no network {DEFAULT}; name a run (--run runs/NAME), or {_AGAIN}")
    return _PLACE / DEFAULT


def network_place(name: str) -> Path | None:
    """The folder of the network that ships under a name, whatever folders of that name there are elsewhere."""
    return _PLACE / name if name in shipped_names() else None


def card_of(name: str) -> Path:
    """The model card of a network that ships.

    Raises:
        RunError: no network has that name.
    """
    if name not in shipped_names():
        raise RunError(f"{name}: no network of that name ships with ichseq; {shipped_text()}")
    return _PLACE / name / CARD


def shipped_text() -> str:
    """Which networks ship, in words."""
    return f"there are {', '.join(shipped_names())}" if shipped_names() else "this copy of ichseq came without any"


def check(folder: Path) -> None:
    """Compare the files of a network that ships with their checksums.

    Raises:
        RunError: one is missing or damaged.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="ascii").splitlines()
        wanted = {file: digest for digest, file in (line.split() for line in lines)}
        for file in (DESCRIPTION, WEIGHTS):
            with open(folder / file, "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != wanted[file]:
                    raise RunError(f"{folder / file}: is damaged (its checksum is not that of {CHECKSUMS}); {_AGAIN}")
    except OSError as error:
        raise RunError(f"{error.filename or folder}: can't be read ({error.strerror}); {_AGAIN}") from None
    except (KeyError, ValueError):
        raise RunError(f"{folder / CHECKSUMS}: is damaged; {_AGAIN}") from None


def described(name: str) -> str:
    """What a network is, its size, what it was trained on and where its card lies, a line each.

    Raises:
        RunError: no network has that name, or its files are damaged.
    """
    folder = card_of(name).parent
    check(folder)
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    lines = {
        "network": network_in_words(description["config"]),
        "size": f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB",
        "trained on": description["trained_on"]["scans"],
        "card": f"{folder / CARD}; `ichseq models {name}` prints it",
    }
    default = " (`ichseq predict` asks it where no --run is given)" if name == DEFAULT else ""
    return "\n".join([f"{name}{default}", *(f"    {key:<12}{value}" for key, value in lines.items())])


def network_in_words(config: Mapping[str, Any]) -> str:
    """Backbone, image size and sequence part of a model's configuration."""
    side, sequence = config["image_size"], config["sequence"]
    then = "each slice by itself" if sequence == "none" else f"then {sequence} over the series"
    return f"{config['backbone']} on slices of {side} x {side} pixels, {then}"
