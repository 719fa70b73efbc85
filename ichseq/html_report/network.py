"""What a report says of the network that answered: what it is, what it was trained and measured on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from ichseq.exported.loaded import AnyModel
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.networks.named import kept_card, network_of
from ichseq.networks.shipped import network_in_words

UNKNOWN: Final = "The table does not say which network answered."
_SHOWN: Final = "What it was measured on"


@dataclass(frozen=True)
class Network:
    """One network or several of a kind.

    Attributes:
        name: of a network that ships or is on the hub; else what there is instead of a name.
        number: how many models of this kind answered; their mean counts.
        what: backbone, image size and sequence part.
        trained_on: in words.
        measured: the section of the card that says so; None: there is no card.
        card: the whole card.
    """

    name: str
    number: int
    what: str
    trained_on: str
    measured: Markup | None
    card: Markup | None


def networks_of(ensemble: ModelEnsemble | None) -> list[Network]:
    """The networks of an ensemble, those that are described alike as one; none if they are not known."""
    found: dict[tuple[object, ...], Network] = {}
    for model in ensemble.models if ensemble is not None else []:
        one = _network(model)
        key = (one.name, one.what, one.trained_on)
        found[key] = dataclasses.replace(one, number=found[key].number + 1) if key in found else one
    return list(found.values())


def _network(model: AnyModel) -> Network:
    of = model.trained_on
    what = network_in_words(dataclasses.asdict(model.config))
    text = kept_card(str(of.get("network"))) if of.get("network") else None
    made_up = "made-up scans (phantoms), wholly or at first" if of.get("phantom") else "scans"
    key = f" of set {str(of['data_key'])[:12]}" if of.get("data_key") else ""
    stage = f", stage {of['stage']}" if of.get("stage") else ""
    trained_on = str(of["scans"]) if of.get("scans") else f"{made_up}{key}{stage}" if of else "not known"
    measured = None if text is None else section(text, _SHOWN)
    return Network(
        name=network_of(of) or "a network without a card",
        number=1,
        what=what,
        trained_on=trained_on,
        measured=None if not measured else html_of(measured),
        card=None if text is None else html_of(text),
    )


def section(text: str, title: str) -> str:
    """The lines below a heading, up to the next heading of any level; "" if there is none."""
    lines = text.splitlines()
    heads = [k for k, line in enumerate(lines) if line.startswith("#")]
    for k in heads:
        if lines[k].lstrip("# ") == title:
            return "\n".join(lines[k + 1 : min((other for other in heads if other > k), default=len(lines))])
    return ""


def html_of(text: str) -> Markup:
    """The Markdown of a card as HTML: headings, paragraphs, lists, tables, indented code; all text is escaped."""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return Markup("\n").join(_block(block.strip("\n").splitlines()) for block in blocks)


def _block(lines: Sequence[str]) -> Markup:
    first = lines[0]
    if first.startswith("#"):
        level = len(first) - len(first.lstrip("#"))
        return Markup("<h{0}>{1}</h{0}>").format(level, inline(first.lstrip("# ")))
    if first.startswith("|"):
        return _table(lines)
    if first.startswith("    "):
        return Markup("<pre>{}</pre>").format("\n".join(line[4:] for line in lines))
    if first.startswith("- "):
        items = "\n".join(lines).removeprefix("- ").split("\n- ")
        made = Markup("").join(Markup("<li>{}</li>").format(inline(" ".join(item.split()))) for item in items)
        return Markup("<ul>{}</ul>").format(made)
    return Markup("<p>{}</p>").format(inline(" ".join(line.strip() for line in lines)))


def _table(lines: Sequence[str]) -> Markup:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head, body = rows[0], rows[2:]  # the second one is the rule below the head
    parts = [_cells("th", head)] if any(head) else []
    parts += [_cells("td", row) for row in body]
    return Markup('<div class="wide"><table>{}</table></div>').format(Markup("").join(parts))


def _cells(kind: str, cells: Sequence[str]) -> Markup:
    made = Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(kind), inline(cell)) for cell in cells)
    return Markup("<tr>{}</tr>").format(made)


def inline(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if k % 2 and len(parts) % 2 else escape(part)
        for k, part in enumerate(parts)
    )
