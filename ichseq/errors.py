"""The errors that a user meets. Each message names the file or value, what is wrong with it, and what to do.

The command line prints the message alone, on one line of standard error, and exits with code 1.
"""


def counted(number: int, word: str) -> str:
    """A number with its noun, for messages: "1 file", "2 files", "3,000 files"; "series" stays as it is."""
    return f"{number:,} {word if number == 1 or word.endswith('s') else word + 's'}"


class IchseqError(Exception):
    """Base of every error that ichseq raises on purpose."""


class ScanError(IchseqError):
    """A DICOM file or series cannot be read, or cannot be read safely; printed as "<file>: <reason>".

    Attributes:
        file: the file as the user knows it; "" where no single file is at fault.
        reason: what is wrong and what to do.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file, self.reason = file, reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}" if self.file else self.reason


class ConfigError(IchseqError):
    """A configuration key, value, backbone or window that does not exist or does not fit."""


class DataError(IchseqError):
    """Labels or a prepared data set that are missing, contradictory, damaged or of another version."""


class RunError(IchseqError):
    """A run that is missing, damaged, or must not be used for what was asked."""


class Stopped(IchseqError):
    """The user or the system asked the process to stop, and it did so in good order.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
