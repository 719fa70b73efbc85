"""What a person should know of every prediction of a network: that it was trained on made-up scans."""

from collections.abc import Iterable

from ichseq.exported.loaded import AnyModel

PHANTOM_NOTE = (
    "these weights were trained on made-up scans (phantoms), wholly or at first, and have no model card: what their "
    "answers are worth on real scans is not known"
)


def phantom_note(models: Iterable[AnyModel]) -> str | None:
    """What a person should know of every prediction of these models: that some were trained on phantoms, if so.

    Of a network that ships, its name, and where its model card is; of others `PHANTOM_NOTE`.
    """
    trained = [model.trained_on for model in models]
    notes = [_note(of.get("network")) for of in trained if of.get("phantom")]
    return "; ".join(dict.fromkeys(notes)) or None


def _note(network: str | None) -> str:
    if network is None:
        return PHANTOM_NOTE
    return (
        f"network {network} has seen made-up bleeding only; what it was measured on and where it fails: "
        f"`ichseq models {network}` prints its card"
    )
