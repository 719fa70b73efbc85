"""The configuration of a run, from YAML and `--set section.key=value`, and back into YAML.

Sections are model, train and augment; slice, frozen and joint hold keys of train that go for that stage alone, so that
one file can describe a run of several stages.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from pydantic.dataclasses import dataclass

from ichseq.config.augment import AugmentConfig
from ichseq.config.fields import (
    STAGES,
    STRICT,
    ByStage,
    ReadBy,
    WithoutEffect,
    did_you_mean,
    read_section,
    settings_of,
)
from ichseq.config.model import ModelConfig
from ichseq.config.train import TrainConfig
from ichseq.config.yaml_text import MOST_CHARACTERS, parse_yaml
from ichseq.errors import ConfigError
from ichseq.files import write_text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """Everything that a run is made from."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """What the network is."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """How a stage is trained."""

    augment: Annotated[AugmentConfig, ReadBy("slice", "joint")] = field(default_factory=AugmentConfig)
    """What is drawn anew each time that a series or slice is read for training."""

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """As plain dicts and lists, as YAML and JSON take them."""
        plain = dataclasses.asdict(self)
        for section in plain.values():
            section |= {name: list(value) for name, value in section.items() if isinstance(value, tuple)}
        return plain


def _sections() -> dict[str, type[Any]]:
    """The sections of a configuration, each with its class."""
    hints = get_type_hints(Config)
    return {item.name: hints[item.name] for item in dataclasses.fields(Config)}


SECTIONS = _sections()


def load_config(
    stage: str,
    source: Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Configuration of a stage: defaults, then `base`, then `source`, then single settings.

    Args:
        stage: slice, frozen or joint.
        source: a YAML file, or what one would hold: sections with keys.
        overrides: texts `section.key=value`, or a dict with keys `section.key`.
        base: sections of a run that is resumed, or of an experiment.

    Raises:
        ConfigError: an unknown stage, section, key or a value that does not fit, named.
    """
    if stage not in STAGES:
        raise ConfigError(f"stage {stage!r} does not exist; choose one of {', '.join(STAGES)}")
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    if base is not None:
        _merge(values, base, "the run's config.yaml", stage)
    if isinstance(source, Mapping):
        _merge(values, source, "config", stage)
    elif source is not None:
        _merge(values, read_yaml(source), str(source), stage)
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _merge(values, _setting(key, value), "settings", stage)
    else:
        for text in overrides:
            _merge(values, _override(text), f"--set {text}", stage)
    for setting in settings_of(TrainConfig):
        by_stage = setting.mark(ByStage)
        if by_stage is not None and values["train"].get(setting.name) is None:
            values["train"][setting.name] = by_stage.of(stage)
    config = Config(**{name: section(**values[name]) for name, section in SECTIONS.items()})
    if config.model.pretrained == "auto":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, pretrained=True))
    return config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    write_text(path, yaml.safe_dump(config.to_dict(), sort_keys=False))


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a YAML file, as they stand there.

    Raises:
        ConfigError: it can't be read, or is no such file.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = parse_yaml(file.read(MOST_CHARACTERS + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the configuration can't be read ({type(error).__name__})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path}: not valid YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: a configuration is sections (model, train, augment, or a stage's name) with keys below them"
        )
    return content


def _override(text: str) -> dict[str, dict[str, Any]]:
    """A setting from the command line, as a file would hold it."""
    key, equals, raw = text.partition("=")
    section, dot, name = key.partition(".")
    if not (equals and dot):
        raise ConfigError(f"--set {text}: write section.key=value, for example train.epochs=3")
    try:
        return {section: {name: parse_yaml(raw)}}
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: {raw!r} is not a YAML value") from None


def _setting(key: str, value: Any) -> dict[str, dict[str, Any]]:
    """A setting from Python, as a file would hold it."""
    section, dot, name = key.partition(".")
    if not dot:
        raise ConfigError(f"settings: {key!r} is no section.key, such as train.epochs")
    return {section: {name: value}}


def _merge(values: dict[str, dict[str, Any]], new: Mapping[str, Any], where: str, stage: str) -> None:
    """Put new values over the old ones; a section named after a stage goes over `train`, for that stage alone."""
    for section in sorted(new, key=lambda name: name in STAGES):  # a stage's own settings come last
        content = new[section]
        if section not in values and section not in STAGES:
            raise ConfigError(f"{where}: no section {section!r}; {did_you_mean(str(section), [*values, *STAGES])}")
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: {section} has to hold keys with values, not {content!r}")
        target = "train" if section in STAGES else section
        read = read_section(SECTIONS[target], content, section, where)
        if section in (stage, target):
            values[target].update({key: getattr(read, key) for key in content})


# ---- what the marks say ----------------------------------------------------------------------------------------------


def settings_ignored_by(stage: str) -> dict[str, dict[str, Any]]:
    """The settings on which a stage's weights do not depend, by section; each with a value that may stand for any."""
    ignored: dict[str, dict[str, Any]] = {}
    hints = get_type_hints(Config, include_extras=True)
    for name, section in SECTIONS.items():
        marks = get_args(hints[name])[1:] if get_origin(hints[name]) is Annotated else ()
        of_all = next((mark for mark in marks if isinstance(mark, ReadBy)), None)
        for setting in settings_of(section):
            read_by = setting.mark(ReadBy) or of_all
            if read_by is not None and stage not in read_by.stages:
                by_stage = setting.mark(ByStage)
                default = by_stage.of(stage) if by_stage else setting.default
                ignored.setdefault(name, {})[setting.name] = read_by.otherwise(default)
    return ignored


def settings_without_effect(*, live_batch_norm: bool = True) -> set[tuple[str, str]]:
    """The settings that change how a training is computed and not its result, as (section, key).

    Args:
        live_batch_norm: whether batch norm learns statistics, to which the chunk matters.
    """
    found = set()
    for name, section in SECTIONS.items():
        for setting in settings_of(section):
            mark = setting.mark(WithoutEffect)
            if mark is not None and (mark.with_live_batch_norm or not live_batch_norm):
                found.add((name, setting.name))
    return found
