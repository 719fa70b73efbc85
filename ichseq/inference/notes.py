"""What a person should know of every prediction of a network: made-up scans in its training, origin and licence."""

from collections.abc import Iterable, Mapping
from typing import Any

from ichseq.exported.loaded import AnyModel
from ichseq.networks.hub import is_hub_name
from ichseq.networks.named import licence_words

PHANTOM_NOTE = (
    "these weights were trained on made-up scans (phantoms), wholly or at first, and have no model card: what their "
    "answers are worth on real scans is not known"
)


def network_note(models: Iterable[AnyModel]) -> str | None:
    """What a person should know of every prediction of these models, each line once; None: nothing.

    Of a network that ships, that it has seen phantoms alone, and where its model card is. Of one from the hub, and of
    one that began from such a one, name, commit and licence. Of others, `PHANTOM_NOTE` where it holds.
    """
    notes = [note for model in models for note in _notes(model.trained_on)]
    return "; ".join(dict.fromkeys(notes)) or None


def _notes(of: Mapping[str, Any]) -> list[str]:
    network, made_up = of.get("network"), bool(of.get("phantom"))
    before = map(str, of.get("began_from") or [])
    began = [f"weights that began from {one}" for one in before if is_hub_name(one) or ", licence " in one]
    if "imported_from" in of:
        return [f"network imported from {of['imported_from']}; {licence_words(of.get('licence'))}", *began]
    if network is None:
        return [*([PHANTOM_NOTE] if made_up else []), *began]
    card = f"`ichseq models {network}` prints its card"
    if "licence" in of:
        seen = ", trained on made-up scans (phantoms), wholly or at first" if made_up else ""
        return [f"network {network}{seen}; {licence_words(of['licence'])}; {card}", *began]
    seen = "has seen made-up bleeding only; what it was measured on and where it fails"
    return [*([f"network {network} {seen}: {card}"] if made_up else []), *began]
