"""A folder pushed to the Hugging Face hub, as one commit."""

from pathlib import Path

from ichseq.errors import ConfigError, RunError
from ichseq.networks.hub import FILES, PREFIX, explained, forget


def checked_name(name: str) -> str:
    """owner/name on the hub, which may be given with its prefix.

    Raises:
        ConfigError: it is no such name.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    bare = name.removeprefix(PREFIX)
    try:
        validate_repo_id(bare)
    except HFValidationError:
        bare = ""
    if "/" not in bare:
        raise ConfigError(f"{name}: is no name on the hub; give owner/name, of letters, digits, -, _ and .")
    return bare


def push(folder: Path, name: str, *, private: bool) -> str:
    """Make the repository, if it is not there, and put the folder's files into it.

    What an earlier version has and this one has not, such as a calibration, is removed from it.

    Args:
        folder: what is published.
        name: owner/name on the hub.
        private: whether those alone may see it whom the owner lets.

    Returns:
        The commit.

    Raises:
        RunError: the hub refuses or can't be reached, or the repository is public and a private one was asked for.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with explained(f"{PREFIX}{name}"):
        api.create_repo(name, private=private or None, exist_ok=True)
        if private and not api.model_info(name).private:
            raise RunError(f"{PREFIX}{name}: is there already and public, so nothing was pushed; make it private on "
                           "the hub, or choose another name")  # fmt: skip
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*FILES],
            delete_patterns=[*FILES],
            commit_message="A network of ichseq",
        )
    forget()
    return str(done.oid)
