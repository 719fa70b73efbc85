"""The quick version of an experiment: the same steps with a small network of the same family, on a CPU in minutes.

`quick.yaml` beside the experiment files says how: in its section `quick`, whose keys are the fields of `Quick`, and in
sections of a configuration, which go over the experiment's.
"""

from dataclasses import field
from pathlib import Path
from typing import Any, Final

from pydantic.dataclasses import dataclass

from ichseq.config import Config
from ichseq.config.fields import STRICT, AtLeast1, Rate
from ichseq.errors import ConfigError

QUICK: Final = "quick.yaml"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Quick:
    """How an experiment is made small; numbers are divided and rounded up."""

    backbones: dict[str, str] = field(default_factory=dict)
    """The small network that stands for a family, by how the names of its backbones begin; the longest that fits. None
    at all: each backbone stays."""

    image_size: AtLeast1 = 1
    """What model.image_size is divided by."""

    hidden_size: AtLeast1 = 1
    """What model.hidden_size is divided by."""

    epochs: AtLeast1 = 1
    """What the epochs of a stage are divided by."""

    sgd_rate: Rate | None = None
    """Learning rate of a stage whose optimizer is SGD; the one in the stage's section is AdamW's."""

    def backbone(self, name: str, path: Path) -> str:
        """The small network that stands for a backbone; `path` is named in errors.

        Raises:
            ConfigError: there is none.
        """
        fitting = [start for start in self.backbones if name.startswith(start)]
        if self.backbones and not fitting:
            raise ConfigError(f"{path}: quick.backbones has none for {name}; it is for names that begin with "
                              f"{', '.join(self.backbones)}")  # fmt: skip
        return self.backbones[max(fitting, key=len)] if fitting else name

    def sizes(self, config: Config, stage: str, path: Path) -> dict[str, dict[str, Any]]:
        """The network's and the stage's sizes, as sections that go over the configuration of a stage."""
        model = config.model
        return {
            "model": {
                "backbone": self.backbone(model.backbone, path),
                "image_size": divided(model.image_size, self.image_size),
                "hidden_size": divided(model.hidden_size, self.hidden_size),
            },
            stage: {"epochs": divided(config.train.epochs or 1, self.epochs)},
        }

    def rates(self, config: Config, stage: str) -> dict[str, dict[str, Any]]:
        """The stage's learning rates, where they are not those of the sections beside this one."""
        if config.train.optimizer != "sgd" or self.sgd_rate is None:
            return {}
        return {stage: {f"{part}_lr": self.sgd_rate for part in ("backbone", "sequence")}}


def divided(number: int, by: int) -> int:
    """A quotient, rounded up."""
    return -(-number // by)
