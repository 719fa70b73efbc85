"""Settings: typed, with their meaning where they stand, read from YAML and `--set section.key=value`.

`ichseq settings` lists them. An unknown key, a wrong type or a value out of range is a ConfigError that names it.
"""

from ichseq.config.augment import AugmentConfig
from ichseq.config.fields import STAGES, did_you_mean, read_section
from ichseq.config.keywords import takes_fields_of
from ichseq.config.load import (
    SECTIONS,
    Config,
    load_config,
    read_yaml,
    save_config,
    settings_ignored_by,
    settings_without_effect,
)
from ichseq.config.model import (
    BackboneConfig,
    EmbeddingConfig,
    InputConfig,
    ModelConfig,
    differing_from_start,
    embedding_settings,
    resolved,
    settings_of_start,
    weights_file,
)
from ichseq.config.train import TrainConfig
from ichseq.config.types_in_words import plain_value

__all__ = [
    "SECTIONS",
    "STAGES",
    "AugmentConfig",
    "BackboneConfig",
    "Config",
    "EmbeddingConfig",
    "InputConfig",
    "ModelConfig",
    "TrainConfig",
    "did_you_mean",
    "differing_from_start",
    "embedding_settings",
    "load_config",
    "plain_value",
    "read_section",
    "read_yaml",
    "resolved",
    "save_config",
    "settings_ignored_by",
    "settings_of_start",
    "settings_without_effect",
    "takes_fields_of",
    "weights_file",
]
