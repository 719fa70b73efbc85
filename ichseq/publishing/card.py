"""The model card of a network that is published: what it is, was trained on and measured on, out of the run's files."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ichseq.data.index import ALL_PATIENTS
from ichseq.evaluation.report import LABEL_HEAD, calibration_text, label_rows, markdown_table, summary_rows
from ichseq.labels import LABELS
from ichseq.model.saved import Description
from ichseq.networks.hub import is_hub_name, repository_of
from ichseq.networks.shipped import NOTICE, network_in_words
from ichseq.predictions.calibration import Calibration
from ichseq.runs.names import fold_words

_TAGS: Final = ("medical", "computed-tomography", "head-ct", "intracranial-hemorrhage")
_RESEARCH: Final = "Research software, not a medical device: no answer of it may reach a patient's care."


class Measured(NamedTuple):
    """Figures of the weights on some patients.

    Attributes:
        on: whose they are, in words.
        metrics: the content of metrics.json.
    """

    on: str
    metrics: Mapping[str, Any]


def card_text(
    name: str,
    description: Description,
    run: Mapping[str, Any],
    measured: Sequence[Measured],
    calibration: Calibration | None,
    licence: str | None,
    *,
    has_notice: bool,
) -> str:
    """The card, in Markdown, with front matter for the hub.

    Args:
        name: owner/name on the hub.
        description: of the model.
        run: the content of run.json; of it no patient, no folder and no machine goes into the card.
        measured: its figures.
        calibration: that goes with it.
        licence: as the hub calls it, such as apache-2.0.
        has_notice: whether a NOTICE goes with it.
    """
    began = [str(one) for one in description.trained_on.get("began_from") or []]
    parts = [
        _front_matter(licence, began),
        f"# {name}",
        f"A network that finds bleeding in head CT, for ichseq: "
        f"{network_in_words(description.config)}. Out come probabilities of {', '.join(LABELS)}, for every slice and "
        f"for the exam. {_RESEARCH}",
        f"    ichseq predict SCAN --run hf-hub:{name}",
        "## What it was trained on",
        "\n".join(f"- {what}: {value}" for what, value in _training(description, run, began)),
        "## What it was measured on",
        *_measured_parts(measured),
    ]
    if calibration is not None:
        parts += ["## Calibration", "`--calibrated` adds what was fitted:", _indented(calibration_text(calibration))]
    notice = [f"What it was made from wants notices to go with the weights: {NOTICE}."] if has_notice else []
    parts += ["## Licence", " ".join([licence or "None is stated.", *notice])]
    return "\n\n".join(parts) + "\n"


def _front_matter(licence: str | None, began: Sequence[str]) -> str:
    """YAML in which texts stand as JSON, which is YAML too."""
    bases = [repository_of(one.split(",")[0]) for one in began if is_hub_name(one)]
    lines = [
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "library_name: ichseq",
        "pipeline_tag: image-classification",
        *([f"base_model: {json.dumps(bases[-1])}"] if bases else []),
        "tags:",
        *(f"- {tag}" for tag in _TAGS),
    ]
    return "\n".join(["---", *lines, "---"])


def _training(description: Description, run: Mapping[str, Any], began: Sequence[str]) -> list[tuple[str, str]]:
    of = description.trained_on
    made_up = "made-up scans (phantoms), wholly or at first" if of.get("phantom") else "scans"
    versions = run.get("versions") or {}
    shares = [
        f"{label} {100 * share:.1f} %"
        for label, share in zip(LABELS, run.get("prevalence") or [None] * len(LABELS), strict=True)
        if share is not None
    ]
    rows = [
        ("scans", f"{made_up}, set {str(run.get('data_key'))[:12]}"),
        ("patients", f"{len(run.get('patients') or []):,}, those of its start included"),
        ("slices with", ", ".join(shares)),
        ("stage", f"{run['stage']}, {'' if run['fold'] == ALL_PATIENTS else 'all but '}{fold_words(run['fold'])}"),
        ("began from", "; ".join(began)),
        ("seed", str(run.get("seed"))),
        ("time of the stage", f"{run.get('seconds', 0.0) / 3600:.2f} hours"),
        ("made with", ", ".join(f"{part} {version}" for part, version in versions.items())),
        ("weights, SHA-256", description.weights),
    ]
    return [row for row in rows if row[1]]


def _measured_parts(measured: Sequence[Measured]) -> list[str]:
    parts = []
    for one in measured:
        views = [str(view) for view in one.metrics.get("tta") or []]
        made_up = " (made-up scans)" if one.metrics.get("phantom") else ""
        parts.append(f"**{one.on}{made_up}**" + (f", views {', '.join(views)} averaged" if views else ""))
        parts.append(markdown_table(("Figure", "Value", "95% interval"), summary_rows(one.metrics)))
        parts.append(markdown_table(("By slice", *LABEL_HEAD[1:]), label_rows(one.metrics, "labels")))
        if "by_exam" in one.metrics:
            head = ("By exam", *LABEL_HEAD[1:-1], "Positive exams")
            parts.append(markdown_table(head, label_rows(one.metrics, "by_exam")))
    return parts or ["Nothing: how good its answers are is not known."]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
