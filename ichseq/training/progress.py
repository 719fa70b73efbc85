"""Where a training stands, and the bar that shows it."""

import math
import time
from dataclasses import dataclass, field
from typing import Any, Self

from tqdm import tqdm


@dataclass
class Position:
    """Where a training stands, and the epoch's sums so far; a checkpoint holds it."""

    step: int = 0  # of the whole run
    epoch: int = 0
    step_of_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # a row an epoch
    best: float | None = None  # lowest validation loss
    epochs_since_best: int = 0
    epoch_loss: float = 0.0  # sum over this process's labels
    epoch_weight: float = 0.0  # of all processes' labels
    seconds: float = 0.0  # of this epoch's steps
    wall_seconds: float = 0.0  # of everything up to the checkpoint, all tries together

    def is_best(self, valid: float) -> bool:
        """Whether a validation loss is lower than any before."""
        return self.best is None or valid < self.best or math.isnan(self.best)

    def next_epoch(self, valid: float | None) -> None:
        """Go to the beginning of the next epoch, after one with this validation loss."""
        if valid is not None:
            self.epochs_since_best = 0 if self.is_best(valid) else self.epochs_since_best + 1
            self.best = valid if self.best is None or math.isnan(self.best) else min(valid, self.best)
        self.epoch += 1
        self.step_of_epoch, self.epoch_loss, self.epoch_weight, self.seconds = 0, 0.0, 0.0, 0.0


class StepBar:
    """A progress bar over the steps of a run, with the figures of the last second.

    Attributes:
        due: whether a second has passed since figures were shown; getting them may make a GPU wait.
    """

    def __init__(self, description: str, steps: int, first: int, *, shown: bool) -> None:
        self._bar = tqdm(total=steps, initial=first, desc=description, unit="step", disable=not shown, mininterval=0.5)
        self._last, self._slices = time.monotonic(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last > 1

    def count(self, slices: int) -> None:
        """Count a step over so many slices."""
        self._slices += slices
        self._bar.update()

    def show(self, epoch: int, loss: float, rate: float) -> None:
        """Put figures beside the bar: epoch, loss, learning rate, and slices a second since the last time."""
        now = time.monotonic()
        speed = self._slices / (now - self._last)
        words = f"epoch {epoch + 1}, loss {loss:.4f}, lr {rate:.1e}, {speed:.0f} slices/s"
        self._bar.set_postfix_str(words, refresh=False)
        self._last, self._slices = now, 0
