"""Which network a name means: one that ships, one on the Hugging Face hub, or a folder that has a network's card.

Such a folder is what `ichseq publish` writes: weights.safetensors and model.json, with the model card README.md. It
is no run: nothing in it says who its patients were, but its card.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from ichseq.documents import read_document
from ichseq.networks import hub, shipped
from ichseq.networks.shipped import DESCRIPTION

_RUN: Final = "run.json"  # as a run calls it; tests/test_hub.py sees that they agree
_MOST_LETTERS: Final = 100  # of a licence's name
_MOST_NETWORKS: Final = 16  # that weights began from, the last ones: model.json takes no more
_MOST_MATTER: Final = 20_000  # letters of front matter


def network_folder(name: str | Path) -> Path | None:
    """The folder of the network that a name or a path means, fetched from the hub if need be; None: it means none.

    Raises:
        RunError: a name of the hub that is not there or can't be fetched.
    """
    path = shipped.shipped_folder(name) or hub.hub_folder(name)
    return path or (Path(name) if is_network(Path(name)) else None)


def is_network(folder: Path) -> bool:
    """Whether a folder is that of a network by itself, and not a leaf of a run."""
    if shipped.is_shipped(folder) or hub.is_fetched(folder):
        return True
    return all((folder / file).is_file() for file in (DESCRIPTION, hub.CARD)) and not (folder / _RUN).is_file()


def home_of_network(folder: Path, runs: Path) -> Path:
    """Where what is found out about a network goes: beside the runs, where its own folder is not to be written to."""
    if shipped.is_shipped(folder):
        return runs / folder.name
    return runs / hub.home_name(folder) if hub.is_fetched(folder) else folder


def name_of(folder: Path) -> str:
    """A folder for errors and records; of one that ships its name, of one from the hub that with the commit."""
    if shipped.is_shipped(folder):
        return folder.name
    return hub.name_of(folder) if hub.is_fetched(folder) else str(folder)


def origin_of(folder: Path) -> dict[str, Any]:
    """What a network from the hub knows of itself beside its training: its name with the commit, and its licence."""
    if not hub.is_fetched(folder):
        return {}
    return {"network": hub.name_of(folder), "licence": licence_in(text_of(folder / hub.CARD))}


def data_key_of_network(folder: Path) -> str | None:
    """The key of the set that a network was trained on, if its model.json says so."""
    try:
        return str(read_document(folder / DESCRIPTION)["trained_on"]["data_key"])
    except (OSError, ValueError, KeyError, TypeError):  # a damaged one is for those who load it
        return None


def card_of_network(name: str) -> str:
    """The model card of a network, without its front matter.

    Raises:
        RunError: no network has that name.
    """
    folder = network_folder(name)
    if folder is None or shipped.is_shipped(folder):
        return shipped.card_of(name if folder is None else folder.name).read_text(encoding="utf-8")
    card = _without_front_matter(text_of(folder / hub.CARD))
    if not hub.is_fetched(folder):
        return card
    origin = origin_of(folder)
    return f"{origin['network']}\n{licence_words(origin['licence'])}\n\n{card or '(it has no model card)'}"


def kept_card(network: str) -> str | None:
    """The card of a network by the name that its model knows, without asking the hub; None: there is none here."""
    if network in shipped.shipped_names():
        return shipped.card_of(network).read_text(encoding="utf-8")
    folder = hub.kept_folder(network)
    return None if folder is None else _without_front_matter(text_of(folder / hub.CARD)) or None


def licence_words(licence: Any) -> str:
    """A licence for a person to read."""
    return f"licence {licence}" if licence else "its card states no licence: ask its authors before you use it"


def network_of(trained_on: Mapping[str, Any]) -> str | None:
    """The name under which others know the network that weights are; None: they are of a run."""
    name = trained_on.get("network") or trained_on.get("imported_from")
    return None if name is None else str(name)


def descent_of(trained_on: Mapping[str, Any]) -> list[str]:
    """The networks that weights are, or began from, for what is trained from them: a line each, the first one first."""
    before = [str(one) for one in trained_on.get("began_from") or []]
    network = network_of(trained_on)
    if network is None:
        return before
    licence = trained_on["licence"] or "not stated" if "licence" in trained_on else None
    return [*before, str(network) if licence is None else f"{network}, licence {licence}"][-_MOST_NETWORKS:]


def licence_in(card: str) -> str | None:
    """The licence that the front matter of a card names; None: it names none."""
    try:
        content = yaml.safe_load(_front_matter(card)[:_MOST_MATTER])
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    licence = content.get("license")
    if licence == "other":
        licence = content.get("license_name", licence)
    if not isinstance(licence, str) or not licence.isprintable() or len(licence) > _MOST_LETTERS:
        return None
    return licence.strip() or None


def _front_matter(card: str) -> str:
    """The YAML between the first line of a card and the next one of three dashes; "" if there is none."""
    if not card.startswith("---\n"):
        return ""
    matter, end, _ = card.removeprefix("---\n").partition("\n---\n")
    return matter if end else ""


def _without_front_matter(card: str) -> str:
    matter = _front_matter(card)
    return (card.removeprefix(f"---\n{matter}\n---\n") if matter else card).strip()


def text_of(file: Path) -> str:
    """What a person reads of a text file from elsewhere; "" if there is none. No terminal can be steered by it."""
    try:
        with open(file, "rb") as stream:
            text = stream.read(hub.FILES[hub.CARD]).decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ""
    return "".join(one for one in text if one.isprintable() or one in "\n\t")
