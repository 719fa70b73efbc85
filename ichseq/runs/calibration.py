"""calibration.json of a run: where it is, written, and strictly read."""

from pathlib import Path

from pydantic import ValidationError

from ichseq.errors import RunError
from ichseq.predictions.calibration import Calibration
from ichseq.runs.folders import find_leaves, has_model
from ichseq.runs.names import CALIBRATION, MODELS
from ichseq.runs.records import read_json, write_json


def calibration_folder(run: Path) -> Path:
    """Where the calibration of a run is: a leaf's own in the leaf, that of several folds in the folder of their stage.

    Raises:
        RunError: no such run.
    """
    return run if has_model(run) or (run / MODELS).is_file() else find_leaves(run)[0].parent


def write_calibration(run: Path, calibration: Calibration) -> Path:
    """Write a run's calibration.

    Returns:
        The file.

    Raises:
        RunError: no such run, or it can't be written.
    """
    path = calibration_folder(run) / CALIBRATION
    write_json(path, calibration.model_dump())
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

    Raises:
        RunError: no such run, or the file is damaged or of another version.
    """
    return calibration_in(run, run.parent) if has_model(run) else calibration_in(calibration_folder(run))


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
    content = read_json(path, remedy)
    try:
        return Calibration.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise RunError(f"{path}: {where}: {first['msg'].lower()}; {remedy}") from None
