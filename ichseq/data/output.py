"""The folder that `prepare` writes: whether it may be used, what stands in it already, and what of that is to go."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from ichseq.data.index_files import patients_of, read_series_there, read_settings, write_settings
from ichseq.data.owned import INDEX, SOURCES, STORE, Owned, is_half_written, refuse_links
from ichseq.data.store import is_range
from ichseq.errors import ConfigError, DataError
from ichseq.files import locked
from ichseq.pseudonyms import SALT
from ichseq.windows import HU_RANGE

_LOCK: Final = ".lock"
Identity = tuple[str, str, str]
"""PatientID, StudyInstanceUID and SeriesInstanceUID of a series."""


def check_output(
    out: Path,
    sources: Sequence[Path],
    *,
    folds: int,
    seed: int,
    hu_range: tuple[int, int],
    labelled: bool,
    exams_labelled: bool,
    pseudonymise: bool,
) -> tuple[dict[Identity, tuple[str, int]], bool]:
    """See whether a set may be prepared here, before any work is done and again under the lock; writes nothing.

    Returns:
        Of the set that stands there, the patient and the fold of every series (empty if there is none); whether there
        is one.

    Raises:
        DataError: the folder holds something else or a set of another version, cannot be written, lies inside the
            source or around it, or has a link for a store; or the set that is there has labels of a kind of which this
            run has none.
        ConfigError: a range that can't be kept; or the set that is there was drawn with other folds or another seed,
            keeps another range, or has pseudonyms where this run has none, or the other way round.
    """
    if not is_range(*hu_range):
        (low, high), (least, most) = hu_range, HU_RANGE
        raise ConfigError(f"--hu-range {low},{high}: a set keeps from {least} or less (above -32768) to {most} or more "
                          "(up to 32767), since every network reads that range; give such a LOW,HIGH")  # fmt: skip
    for source in sources:
        _keep_apart(source.resolve(), out.resolve(), source, out)
    existing = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise DataError(f"{existing}: is a file, so nothing can be prepared there; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DataError(f"{existing}: cannot be written (read-only, or not yours); choose another folder")
    refuse_links(out)
    if not out.exists() or not _content(out):
        return {}, False
    if not (out / INDEX).exists():
        raise DataError(f"{out}: holds other files, and no prepared set; choose a new or an empty folder")
    settings = read_settings(out)
    if not settings["finished"]:
        return {}, False
    for name, asked in (("folds", folds), ("seed", seed)):
        if settings[name] != asked:
            raise ConfigError(
                f"{out}: its folds were drawn with {name} {settings[name]} and are never drawn again; ask for {name} "
                f"{settings[name]} instead of {asked}, or prepare into another folder"
            )
    if (kept := tuple(settings["hu_range"])) != hu_range:
        low, high = kept
        raise ConfigError(
            f"{out}: keeps {low} to {high} HU, not {hu_range[0]} to {hu_range[1]}; prepare it with --hu-range "
            f"{low},{high}, or prepare into another folder"
        )
    if ("pseudonyms" in settings) != pseudonymise:
        has, how = ("ids as the scans have them", "out") if pseudonymise else ("pseudonyms for ids", "")
        raise ConfigError(f"{out}: has {has}; prepare it with{how} --pseudonymise, or prepare into another folder")
    if settings["labels"] and not labelled:
        raise DataError(f"{out}: has labels from {settings['labels']}, and this run would lose them; give them again")
    if settings.get("exam_labels") and not exams_labelled:
        of = settings["labels"]
        raise DataError(f"{out}: has labels of exams from {of}, and this run would lose them; give them again")
    return _series_there(out), True


def _keep_apart(source: Path, out: Path, source_shown: Path, out_shown: Path) -> None:
    if out.is_relative_to(source):
        raise DataError(
            f"{out_shown}: lies inside the source {source_shown}, which would then hold its own output; "
            "choose a folder beside it"
        )
    if source.is_relative_to(out):
        raise DataError(f"{source_shown}: lies inside the output folder {out_shown}; choose a folder beside it")


def _content(out: Path) -> list[str]:
    """Names in the folder, less the lock and half-written files that a killed run left."""
    return [name for name in os.listdir(out) if name != _LOCK and not is_half_written(name)]


def _series_there(out: Path) -> dict[Identity, tuple[str, int]]:
    columns = ["patient_id", "study_uid", "series_uid", "fold"]
    table = read_series_there(out)
    names, patients = (table[name].to_pylist() for name in columns), patients_of(table).to_pylist()
    rows = zip(*names, strict=True)
    return {
        (p, study, series): (patient, fold) for (p, study, series, fold), patient in zip(rows, patients, strict=True)
    }


def places_there(out: Path) -> list[str]:
    """The files of the store that the set in a folder names; raises as `check_output`."""
    return list(read_series_there(out)["store"].to_pylist())


def check_same_source(out: Path, there: dict[Identity, tuple[str, int]], found: set[Identity]) -> None:
    """See that the source still has every series of the set that stands in `out`; it may have more.

    Raises:
        DataError: it has not.
    """
    gone = sum(identity not in found for identity in there)
    if gone:
        of = read_settings(out)["source"]
        raise DataError(
            f"{out}: was prepared from {', '.join(of)}, and {gone} of its {len(there)} series are not in this source; "
            "give a source that has them (it may have more), or prepare into another folder"
        )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Make the folder and keep a second run out of it; a run that is killed lets go of it by itself.

    Raises:
        DataError: it cannot be made, or another run is at work in it.
    """
    stack = ExitStack()
    try:
        stack.enter_context(locked(out / _LOCK, lambda: True))
    except InterruptedError:
        raise DataError(f"{out}: another `ichseq prepare` is at work there; wait until it ends") from None
    except OSError as error:
        raise DataError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    with stack:
        yield


def begin(out: Path, hu_range: tuple[int, int] = HU_RANGE) -> None:
    """Mark a new folder as ours, and its set as not finished."""
    write_settings(out, finished=False, hu_range=hu_range)


def discard(out: Path, owned: Owned) -> None:
    """Take back `begin`, where nothing could be prepared; what others put into the folder stays, and so does it."""
    with suppress(OSError, DataError):
        if not read_settings(out)["finished"]:
            owned.keep_only(())
            if (out / STORE).is_dir():
                (out / STORE).rmdir()
            (out / INDEX).unlink()
            (out / SALT).unlink(missing_ok=True)
            (out / SOURCES).unlink(missing_ok=True)
            (out / _LOCK).unlink(missing_ok=True)
            out.rmdir()
