"""Networks on the Hugging Face hub, by name: hf-hub:owner/name@revision, fetched into the hub's own cache.

Of a repository the files of `FILES` are fetched, within their sizes, and no other: tensors and text. Nothing in it is
executed, and no pickle is read. Where they lie says whose they are:

    <HF_HOME>/hub/models--<owner>--<name>/snapshots/<commit>/

Without a network, or with HF_HUB_OFFLINE=1, the copy in the cache answers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from ichseq.errors import RunError
from ichseq.networks.shipped import DESCRIPTION, NOTICE, WEIGHTS

PREFIX: Final = "hf-hub:"
CARD: Final = "README.md"
CALIBRATION: Final = "calibration.json"  # as a run calls it; tests/test_hub.py sees that they agree

_TEXT: Final = 1 << 20
FILES: Final = {DESCRIPTION: _TEXT, WEIGHTS: 4 << 30, CALIBRATION: _TEXT, CARD: _TEXT, NOTICE: _TEXT}
"""What a repository is asked for, with the most bytes that are taken."""

_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_OF_ICHSEQ: Final = "no network of ichseq; name one that `ichseq publish` has written"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_LOG_IN: Final = "log in with `hf auth login`, or set HF_TOKEN"


def hub_folder(name: str | Path) -> Path | None:
    """The folder in the cache of the network that a name means, fetched if need be; None: it is no name of the hub.

    Without a revision, that is the newest one. What a name means is asked once in the life of a process.

    Raises:
        RunError: there is no such network, it can't be fetched, or it is none of ichseq.

    Example:
        >>> from ichseq.networks.hub import hub_folder
        >>> hub_folder("runs/first") is None
        True
    """
    path = Path(name)
    if is_fetched(path):
        return path
    return _fetched(path.as_posix()) if is_hub_name(path) else None


def is_hub_name(name: str | Path) -> bool:
    """Whether a name is one of the hub."""
    return Path(name).as_posix().startswith(PREFIX)


def is_fetched(folder: Path) -> bool:
    """Whether a folder is that of a revision in the hub's cache."""
    parents = folder.absolute().parents
    return (
        _COMMIT.fullmatch(folder.name) is not None
        and len(parents) > 1
        and parents[0].name == "snapshots"
        and parents[1].name.startswith("models--")
    )


def name_of(folder: Path) -> str:
    """The name of a revision in the cache, with its commit."""
    return f"{PREFIX}{_repository(folder)}@{folder.name}"


def home_name(folder: Path) -> str:
    """What a folder for figures on a revision is called."""
    return f"{_repository(folder).replace('/', '--')}-{folder.name[:8]}"


def repository_of(name: str) -> str:
    """owner/name of a name of the hub."""
    return name.removeprefix(PREFIX).partition("@")[0]


def forget() -> None:
    """Ask again what names without a commit mean."""
    _fetched.cache_clear()


def kept_folder(name: str) -> Path | None:
    """The folder of a commit that is in the cache; None: it is not, or the name is none with a commit."""
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if not name.startswith(PREFIX) or not _COMMIT.fullmatch(revision):
        return None
    from huggingface_hub import snapshot_download

    with suppress(OSError, ValueError):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[*FILES], local_files_only=True))
        return folder if not _missing(path.name for path in folder.iterdir()) else None
    return None


@cache
def _fetched(name: str) -> Path:
    kept = kept_folder(name)
    return fetched_files(name, FILES, (DESCRIPTION, WEIGHTS), _OF_ICHSEQ) if kept is None else kept


def fetched_files(name: str, files: Mapping[str, int], needed: Sequence[str], otherwise: str) -> Path:
    """The folder in the cache with some files of a repository.

    Args:
        name: hf-hub:owner/name, with or without a revision.
        files: that are asked for, with the most bytes that are taken of each.
        needed: those of them that have to be there.
        otherwise: what a repository without these is, and what to do, for the error.

    Raises:
        RunError: there is no such repository, it can't be fetched, or it has not what is needed.
    """
    from huggingface_hub import HfApi, snapshot_download

    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    what: dict[str, Any] = {"revision": revision or None, "allow_patterns": [*files]}
    with explained(name):
        try:
            found = HfApi().model_info(repository, revision=revision or None, files_metadata=True)
        except Exception as error:  # the client's errors of the network have types of its own, by version
            if not _is_unreachable(error):
                raise
            folder = Path(snapshot_download(repository, local_files_only=True, **what))
        else:
            sizes = {one.rfilename: one.size for one in found.siblings or []}
            _refuse_others(name, sizes, files, needed, otherwise)
            folder = Path(snapshot_download(repository, **what))
            if folder.name != found.sha:
                raise RunError(f"{name}: was changed while it was fetched; run the same again")
    if missing := [file for file in needed if not (folder / file).is_file()]:
        raise RunError(f"{name}: its copy in the cache has no {' and no '.join(missing)}; fetch it again where there "
                       "is a network")  # fmt: skip
    return folder


def _missing(files: Iterator[str]) -> list[str]:
    there = set(files)
    return [file for file in (DESCRIPTION, WEIGHTS) if file not in there]


def _refuse_others(
    name: str, sizes: dict[str, int | None], files: Mapping[str, int], needed: Sequence[str], otherwise: str
) -> None:
    """See that a repository is that of a network, before anything is fetched.

    Raises:
        RunError: it is not, or a file is too large.
    """
    if missing := [file for file in needed if file not in sizes]:
        pickles = sorted(file for file in sizes if file.endswith(_PICKLES))
        hint = f"; {pickles[0]} is a pickle, which could run code and is not read" if pickles else ""
        what, _, remedy = otherwise.partition("; ")
        raise RunError(f"{name}: has no {' and no '.join(missing)}, so it is {what}{hint}; {remedy}")
    for file, most in files.items():
        size = sizes.get(file, 0)
        if size is None or size > most:
            raise RunError(f"{name}: {file} has {'no known size' if size is None else f'{size:,} bytes'}; at most "
                           f"{most:,} are fetched; name another network")  # fmt: skip


def _is_unreachable(error: Exception) -> bool:
    """Whether the hub did not answer, or answered that it can't just now."""
    from huggingface_hub.utils import HfHubHTTPError, HFValidationError

    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return error.response.status_code >= 500
    return not isinstance(error, HFValidationError)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Within it, what the hub refuses, or a network that is not there, is a RunError that says so.

    Args:
        name: of the network, for the error.
    """
    from huggingface_hub import constants
    from huggingface_hub import utils as hub

    try:
        yield
        return
    except RunError:
        raise
    except hub.HFValidationError:
        reason = "is no name of the hub; it is hf-hub:owner/name or hf-hub:owner/name@revision"
    except hub.GatedRepoError:
        place = f"{constants.ENDPOINT}/{repository_of(name)}"
        reason = f"is given to those alone who accept its terms: do so on {place}, then {_LOG_IN}"
    except hub.RevisionNotFoundError:
        reason = "the hub has no such revision of it; name a branch, a tag or a commit that is there"
    except hub.RepositoryNotFoundError:
        reason = f"the hub has no such network, or it is private; check the name, or {_LOG_IN}"
    except hub.LocalEntryNotFoundError:  # before the next, which it is too in some versions of the client
        off = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        reason = f"the hub can't be reached{off}, and its cache has no copy; fetch it once where there is a network"
    except hub.HfHubHTTPError as error:
        status = "nothing" if error.response is None else error.response.status_code
        reason = f"the hub refuses ({status}); {_LOG_IN}" if status in (401, 403) else f"the hub answers {status}"
    except Exception as error:  # the client's errors of the network have types of its own, by version
        reason = f"the hub can't be reached ({type(error).__name__}); try again where there is a network"
        if isinstance(error, OSError) and error.strerror:
            reason = f"its files can't be kept ({error.strerror}); make room, or set HF_HOME to another folder"
    raise RunError(f"{name}: {reason}")


def _repository(folder: Path) -> str:
    return folder.absolute().parents[1].name.removeprefix("models--").replace("--", "/", 1)
