"""The folder of a network that is published: its model, its calibration, its card, and nothing of its patients."""

import shutil
from pathlib import Path

from ichseq.errors import RunError
from ichseq.files import is_taken, replacing
from ichseq.model import Model
from ichseq.model.saved import damage_explained, read_description
from ichseq.networks import hub
from ichseq.networks.named import descent_of, is_network
from ichseq.networks.shipped import DESCRIPTION, NOTICE, WEIGHTS, network_place
from ichseq.predictions.calibration import Calibration
from ichseq.publishing.card import Measured, card_text
from ichseq.runs.calibration import find_calibration
from ichseq.runs.folders import models_of
from ichseq.runs.names import METRICS, SETS, fold_words
from ichseq.runs.records import read_json, read_run, write_json


def only_model(run: Path) -> Path:
    """The leaf of a run that is published.

    Raises:
        RunError: no such run, several models, or a network that is published already.
    """
    folders = models_of(run)
    if len(folders) != 1:
        raise RunError(f"{run}: has {len(folders)} models, and one is published; name its leaf, {folders[0]} for one")
    if is_network(folders[0]):
        raise RunError(f"{run}: is no run, but a network that was published already; name a run of yours")
    return folders[0]


def write_folder(leaf: Path, folder: Path, name: str, licence: str | None) -> list[str]:
    """Write what is published; the folder appears whole.

    Args:
        leaf: of a run, whose best weights they are.
        folder: to make; one that is there has to be empty.
        name: owner/name on the hub.
        licence: as the hub calls it; None: none is stated.

    Returns:
        What its author should know, a line each.

    Raises:
        RunError: a damaged model, or a folder that is taken or can't be made.
    """
    Model.load(leaf, device="cpu")  # so that nothing is published that can't be loaded
    with damage_explained(leaf):
        description = read_description(leaf)
    run, calibration = read_run(leaf), find_calibration(leaf)
    measured, remarks = _measured(leaf, description.weights)
    notices = _notices(descent_of(description.trained_on))
    if is_taken(folder):
        raise RunError(f"{folder}: is there already; choose another folder")
    card = card_text(name, description, run, measured, calibration, licence, has_notice=bool(notices))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as beside:
            beside.mkdir()
            for file in (WEIGHTS, DESCRIPTION):
                shutil.copyfile(leaf / file, beside / file)
            _write_rest(beside, card, calibration, notices)
    except OSError as error:
        raise RunError(f"{folder}: can't be written ({error.strerror}); make room, or choose another") from None
    if not licence:
        remarks.append("no licence is stated, so that others may not use it; give one: --licence apache-2.0")
    return remarks


def _write_rest(folder: Path, card: str, calibration: Calibration | None, notices: str) -> None:
    (folder / hub.CARD).write_text(card, encoding="utf-8")
    if calibration is not None:
        write_json(folder / hub.CALIBRATION, calibration.model_dump(), sealed=True)
    if notices:
        (folder / NOTICE).write_text(notices, encoding="utf-8")


def _measured(leaf: Path, weights: str) -> tuple[list[Measured], list[str]]:
    """The figures of the best weights alone, and a line where there are others or none."""
    kept = fold_words(read_run(leaf)["fold"])
    places = [(leaf, f"Patients kept for validation, {kept}")]
    places += [
        (folder, f"All of set {folder.name.rpartition('-')[2]}, which it never saw")
        for home in (leaf, leaf.parent)
        for folder in sorted((home / SETS).glob("*"))
    ]
    found = [
        Measured(on, read_json(place / METRICS, "run `ichseq evaluate` again"))
        for place, on in places
        if (place / METRICS).is_file()
    ]
    own = [one for one in found if one.metrics.get("weights") == [weights]]
    remarks = []
    if len(own) < len(found):
        remarks.append("figures of a bag, or of other weights, are not on the card; run `ichseq evaluate` for its own")
    if not own:
        remarks.append("the card has no figures, as the run was not evaluated; run `ichseq evaluate` first")
    return own, remarks


def _notices(descent: list[str]) -> str:
    """What the networks that ship, and that weights began from, want to go with them."""
    places = [network_place(one) for one in descent]
    return "\n\n".join((place / NOTICE).read_text(encoding="utf-8") for place in places if place is not None)
