"""The folder of DICOM results: what is found out before the work."""

import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory

from ichseq.errors import ConfigError, DataError


def check_results_folder(out: Path) -> None:
    """Find out whether results can be made and written there.

    What is in the folder stays, but for results of the same exam.

    Raises:
        ConfigError: highdicom is not there.
        DataError: the folder can't be written.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise ConfigError("DICOM results want the package highdicom: pip install 'ichseq[dicom]'")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is there already, and is no folder; choose another --dicom")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out):
            pass
    except OSError as error:
        raise DataError(f"{out}: can't be written ({error.strerror}); choose another --dicom") from None
