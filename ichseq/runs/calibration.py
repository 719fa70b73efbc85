"""calibration.json of a run: where it is, written, and strictly read."""

from pathlib import Path

from pydantic import ValidationError

from ichseq.errors import RunError
from ichseq.networks.named import network_folder
from ichseq.predictions.calibration import Calibration
from ichseq.runs.folders import has_model, home_of
from ichseq.runs.names import CALIBRATION
from ichseq.runs.records import read_json, write_json


def write_calibration(run: Path, calibration: Calibration) -> Path:
    """Write a run's calibration.

    Returns:
        The file.

    Raises:
        RunError: no such run, or it can't be written.
    """
    path = home_of(run) / CALIBRATION
    write_json(path, calibration.model_dump(), sealed=True)
    return path


def calibration_in(*folders: Path) -> Calibration | None:
    """The calibration in the first of some folders that has one; None if none has.

    Raises:
        RunError: the file is damaged or of another version.
    """
    found = [folder / CALIBRATION for folder in folders if (folder / CALIBRATION).is_file()]
    return _read(found[0]) if found else None


def find_calibration(run: Path) -> Calibration | None:
    """The calibration of a run or a leaf; of a leaf without its own, that of its stage; None if there is none.

    Of a network, the one that was made here, in runs/NAME, before the one that came with it.

    Raises:
        RunError: no such run, or the file is damaged or of another version.
    """
    if (network := network_folder(run)) is not None:
        return calibration_in(home_of(run), network)
    return calibration_in(run, run.parent) if has_model(run) else calibration_in(home_of(run))


def read_calibration(run: Path) -> Calibration:
    """As `find_calibration`, where there has to be one.

    Raises:
        RunError: there is none, or as `find_calibration`.
    """
    found = find_calibration(run)
    if found is None:
        raise RunError(f"{run}: has no calibration; fit one to its evaluated folds: `ichseq calibrate --run {run}`")
    return found


def _read(path: Path) -> Calibration:
    remedy = "make it again with `ichseq calibrate`"
    content = read_json(path, remedy, sealed=True)
    try:
        return Calibration.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise RunError(f"{path}: {where}: {first['msg'].lower()}; {remedy}") from None
