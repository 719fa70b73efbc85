"""Experiment files: a configuration, and what is done with it.

A file has the sections of a configuration (`ichseq.config`), and beside them

    base         another file, or a list of them, that this one's values go over
    experiment   stages, folds, bags, views, smoothing: see `Plan`; or a blend of other experiments
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, field, replace
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from ichseq.config import STAGES, Config, load_config, read_section, read_yaml, settings_ignored_by
from ichseq.config.fields import STRICT, AtLeast1, Setting, Several, Stage, settings_of
from ichseq.data.index import ALL_PATIENTS
from ichseq.errors import ConfigError, counted
from ichseq.experiment.quick import QUICK, Quick
from ichseq.labels import CLIP_PROBABILITY


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


@plain_dataclass(frozen=True)
class ByFold:
    """A mark: a number of one stage, for all folds or one for each of them.

    Attributes:
        stage: that it is for.
        what: of it the plan decides: "epochs", or "bag", the last epochs that go on.
    """

    stage: Stage
    what: Literal["epochs", "bag"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Plan:
    """What is done with a configuration."""

    start: str = ""
    """Another file, whose last models the first stage starts from."""

    stages: Several[Stage] = ()
    """Stages in order, each from the weights of the one before."""

    folds: Annotated[Several[int | str], BeforeValidator(_listed)] = (0,)
    """Folds that are kept for validation in turn: numbers, all, or all-patients: every patient is trained on, so that
    none is left for a score."""

    slice_epochs: Annotated[Several[AtLeast1], ByFold("slice", "epochs")] = ()
    """Epochs of the slice stage by fold, in the order of folds; none: slice.epochs for each."""

    slice_bag: Annotated[AtLeast1 | Several[AtLeast1], ByFold("slice", "bag")] = 1
    """The last n epochs of the slice stage, each with later stages of its own; the mean of their answers. One n, or one
    for each of folds."""

    bag: AtLeast1 = 1
    """The last n epochs of the last stage after the slice stage; the mean of their answers."""

    tta: Several[Literal["flip", "transpose"]] = ()
    """Views that are averaged with the slices as they are."""

    smooth: Literal["none", "mean", "weighted"] = "none"
    """Smoothing over 3 neighbouring slices: their mean, or weighted, 0.6, 1.8, 0.6 divided by 3."""

    clip: Annotated[float, Field(ge=0, lt=0.5)] = CLIP_PROBABILITY
    """Probabilities are kept this far from 0 and from 1."""

    blend: Several[str] = ()
    """Instead of stages: files of other experiments, whose answers are averaged."""

    def own(self, stage: str, what: str, place: int) -> int | None:
        """What the plan states for a stage, on the fold at a place of `folds`; None: nothing."""
        for setting, mark in by_fold():
            numbers = _listed(getattr(self, setting.name))
            if (mark.stage, mark.what) == (stage, what) and numbers:
                return numbers[place % len(numbers)]
        return None

    def bag_of(self, stage: str, place: int) -> int:
        """How many of a stage's last epochs go on, on the fold at a place of `folds`."""
        return self.own(stage, "bag", place) or (self.bag if stage == self.stages[-1] else 1)

    def bag_setting(self, stage: str) -> str:
        """The setting from which `bag_of` takes it."""
        return next((s.name for s, mark in by_fold() if (mark.stage, mark.what) == (stage, "bag")), "bag")


def by_fold() -> list[tuple[Setting, ByFold]]:
    """The settings of a plan that may have a number for each fold, with their marks."""
    return [(setting, mark) for setting in settings_of(Plan) if (mark := setting.mark(ByFold))]


@plain_dataclass(frozen=True)
class Spec:
    """An experiment file, its bases merged into it.

    Attributes:
        path: of the file; the experiment's name is its stem.
        plan: the section `experiment`.
        sections: of the configuration, by name.
        parts: of a blend, the experiments.
        start: the experiment that this one starts from.
        seed: that was asked for instead of the file's; None: the file's.
    """

    path: Path
    plan: Plan
    sections: dict[str, dict[str, Any]]
    parts: list["Spec"] = field(default_factory=list)
    start: "Spec | None" = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """What the experiment is called."""
        return self.path.stem

    @property
    def recipe(self) -> str:
        """Hash of all that the experiment is, seed and folds aside: its plan and settings, and what it stands on."""
        plan = asdict(replace(self.plan, folds=()))
        sections = {n: {k: v for k, v in values.items() if k != "seed"} for n, values in self.sections.items()}
        below = [one.recipe for one in [*self.parts, *([self.start] if self.start else [])]]
        content = json.dumps([plan, {n: v for n, v in sections.items() if v}, below], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=5).hexdigest()

    def config(self, stage: str, place: int = 0) -> Config:
        """The configuration of a stage, on the fold at a place of `plan.folds`.

        What a stage does not read is at its default, so that experiments which differ in it alone share the training.
        The epochs that the plan needs are kept.
        """
        sections = {name: dict(values) for name, values in self.sections.items()}
        if epochs := self.plan.own(stage, "epochs", place):
            sections.setdefault(stage, {})["epochs"] = epochs
        config = load_config(stage, base=sections)
        stated = settings_ignored_by(stage)
        # Where the bag is the stage's own, any epoch may be asked for by some experiment.
        stated["train"]["keep_epochs"] = config.train.epochs if self.plan.own(stage, "bag", place) else self.plan.bag
        changed: dict[str, Any] = {name: replace(getattr(config, name), **values) for name, values in stated.items()}
        return replace(config, **changed)

    def check(self) -> None:
        """See that the plan can be carried out.

        Raises:
            ConfigError: it can't.
        """
        plan = self.plan
        if bool(plan.stages) == bool(plan.blend):
            raise ConfigError(f"{self.path}: experiment needs stages, or a blend of other experiments")
        if len(set(plan.stages)) < len(plan.stages) or STAGES[0] in plan.stages[1:]:
            raise ConfigError(f"{self.path}: experiment.stages is {list(plan.stages)}; each once, {STAGES[0]} before "
                              "the others")  # fmt: skip
        if len(set(plan.folds)) < len(plan.folds) or (len(plan.folds) > 1 and {"all", "all-patients"} & {*plan.folds}):
            raise ConfigError(f"{self.path}: experiment.folds is {list(plan.folds)}; each fold once, or all, or "
                              "all-patients alone")  # fmt: skip
        for setting, _ in by_fold():
            values = getattr(plan, setting.name)
            count = 1 if isinstance(values, int) else len(values)
            if values != setting.default and count not in (1, len(plan.folds)):
                raise ConfigError(f"{self.path}: experiment.{setting.name} has {count} numbers for "
                                  f"{counted(len(plan.folds), 'fold')}; one for each")  # fmt: skip
        for place, stage in ((p, s) for s in plan.stages for p in range(len(plan.folds))):
            bag, name = plan.bag_of(stage, place), plan.bag_setting(stage)
            epochs = self.config(stage, place).train.epochs or 1
            if bag > epochs:
                raise ConfigError(f"{self.path}: experiment.{name} is {bag}, and {stage}.epochs {epochs}: a bag can't "
                                  "hold more epochs than there are")  # fmt: skip
        for part in [*self.parts, *([self.start] if self.start else [])]:
            part.check()

    def fold_numbers(self, folds: int) -> list[int]:
        """The folds as numbers, of a set with so many.

        Raises:
            ConfigError: one does not exist.
        """
        named: dict[Any, list[int]] = {"all": list(range(folds)), "all-patients": [ALL_PATIENTS]}
        numbers: list[int] = []
        for fold in self.plan.folds:
            if fold not in named and not (isinstance(fold, int) and 0 <= fold < folds):
                raise ConfigError(f"{self.path}: fold {fold!r} does not exist; the set has folds 0 to {folds - 1}, and "
                                  "there are all and all-patients")  # fmt: skip
            numbers += named.get(fold) or [int(fold)]
        return numbers


def load_spec(path: Path, *, quick: bool = False, folds: Sequence[int | str] = (), seed: int | None = None) -> Spec:
    """Read an experiment file.

    Args:
        path: of the file.
        quick: put `quick.yaml`, which lies beside the file, over it; its bags are upper limits.
        folds: instead of those that the file names.
        seed: instead of `train.seed`.

    Raises:
        ConfigError: a file that can't be read, an unknown section, key or value, or a plan that can't be carried out.
    """
    spec = _load(path, quick, tuple(folds), seed, ())
    spec.check()
    return spec


def _load(path: Path, quick: bool, folds: tuple[int | str, ...], seed: int | None, above: tuple[Path, ...]) -> Spec:
    content = _merged(path, ())
    plan = _plan(content, path)
    if quick:
        plan = _made_quick(plan, content, path.parent / QUICK)
    if folds:
        chosen = {setting.name: _of_folds(plan, setting.name, folds, path) for setting, _ in by_fold()}
        plan = replace(plan, folds=folds, **chosen)
    if path.resolve() in above:
        raise ConfigError(f"{path}: stands on itself, by start or blend")
    above = (*above, path.resolve())
    if seed is not None:
        for values in content.values():
            values.pop("seed", None)  # also of a stage
        _put_over(content, {"train": {"seed": seed}})
    parts = [_load(path.parent / part, quick, folds, seed, above) for part in plan.blend]
    start = _load(path.parent / plan.start, quick, tuple(plan.folds), seed, above) if plan.start else None
    return Spec(path, plan, content, parts, start, seed)


def _made_quick(plan: Plan, content: dict[str, dict[str, Any]], path: Path) -> Plan:
    """Make an experiment small, as a file says: its content in place, and the plan that goes with it."""
    over = _merged(path, ())
    quick = read_section(Quick, over.pop("quick", {}), "quick", str(path))
    limits, asked = _plan(over, path), dict[Stage, Config]()
    for stage in plan.stages:
        epochs = plan.own(stage, "epochs", 0)  # one for all folds, as the bags
        asked[stage] = load_config(stage, {stage: {"epochs": epochs}} if epochs else None, base=content)
    for stage, config in asked.items():
        _put_over(content, quick.sizes(config, stage, path))
    _put_over(content, over)
    bags = {"slice_bag": min(*_listed(plan.slice_bag), *_listed(limits.slice_bag)), "bag": min(plan.bag, limits.bag)}
    for stage, config in asked.items():
        _put_over(content, quick.rates(config, stage))
        name = plan.bag_setting(stage)
        bags[name] = min(bags[name], load_config(stage, base=content).train.epochs or 1)
    return replace(plan, slice_epochs=(), **bags)


def _of_folds(plan: Plan, name: str, folds: tuple[int | str, ...], path: Path) -> Any:
    """A setting by fold for other folds than the file's: each by its place among those."""
    values = getattr(plan, name)
    if isinstance(values, int) or len(values) < 2:
        return values
    unknown = [fold for fold in folds if fold not in plan.folds]
    if unknown:
        raise ConfigError(f"{path}: experiment.{name} is for the folds {list(plan.folds)}, and says nothing of "
                          f"{unknown[0]!r}; choose among them")  # fmt: skip
    return tuple(values[plan.folds.index(fold)] for fold in folds)


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """The sections of a file over those of its bases."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: is a base of itself")
    content = read_yaml(path)
    bases = content.pop("base", None) or []
    merged: dict[str, dict[str, Any]] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        _put_over(merged, _merged(path.parent / str(base), (*above, path.resolve())))
    for section, values in content.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {section} has to hold keys with values, not {values!r}")
    return _put_over(merged, content)


def _put_over(below: dict[str, dict[str, Any]], above: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for section, values in above.items():
        below.setdefault(section, {}).update(values)
    return below


def _plan(content: dict[str, dict[str, Any]], path: Path) -> Plan:
    """Take the plan out of a file's sections."""
    return read_section(Plan, content.pop("experiment", {}), "experiment", str(path))
