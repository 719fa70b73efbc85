"""Settings: what is wrong is named, what YAML misreads is understood, and what was resolved loads as it was."""

import re
from pathlib import Path

import pytest

from ichseq.config import (
    SECTIONS,
    STAGES,
    Config,
    ModelConfig,
    TrainConfig,
    differing_from_start,
    load_config,
    resolved,
    save_config,
    settings_ignored_by,
    settings_without_effect,
)
from ichseq.config.fields import ByStage, read_section, settings_of
from ichseq.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("trian.epochs=3", ["trian", "did you mean 'train'?"]),
        ("train.epoch=3", ["train.epoch", "did you mean 'epochs'?"]),
        ("augment.qqqq=3", ["augment.qqqq", "flip", "rotate"]),
        ("train.epochs=many", ["train.epochs", "'many'", "int"]),
        ("train.epochs=2.5", ["train.epochs", "2.5", "int"]),
        ("train.epochs=true", ["train.epochs", "True", "int"]),
        ("train.weight_decay=true", ["train.weight_decay", "True", "float"]),
        ("train.weight_decay=heavy", ["train.weight_decay", "'heavy'", "float"]),
        ("model.normalise=3", ["model.normalise", "3", "bool"]),
        ("model.windows=brain", ["model.windows", "'brain'"]),
        ("model.windows=[brain, 4]", ["model.windows", "4", "brain, subdural, soft_tissue, bone"]),
        ("model.crop=head", ["model.crop", "'head'", "series, slice, none"]),
        ("model.sequence=lstm", ["model.sequence", "'lstm'", "lstm2_delta, logits", "none"]),
        ("model.sequence_inputs=[age]", ["model.sequence_inputs", "'age'", "position, spacing"]),
        ("train.precision=on", ["train.precision", "auto, no, bf16, fp16"]),
        ("train.epochs=2001-99-99", ["train.epochs"]),
        ("train.epochs=[1", ["train.epochs=[1", "YAML"]),
        ("train.epochs", ["train.epochs", "section.key=value"]),
        ("epochs=3", ["epochs=3", "section.key=value"]),
    ],
)
def test_what_does_not_fit_is_named(setting: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("joint", None, [setting])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("train.epochs", 0, 1),
        ("train.patients_per_batch", 0, 1),
        ("train.workers", -1, 0),
        ("train.backbone_lr", -1e-9, 0),
        ("train.sequence_lr", ".nan", 1),
        ("train.sequence_lr", ".inf", 1),
        ("train.clip_norm", -1, "null"),
        ("train.ema", 1, 0.999),
        ("model.dropout", 1, 0.5),
        ("model.channel_dropout", 1, 0.3),
        ("model.channel_dropout", -0.1, 0),
        ("model.image_size", 31, 32),
        ("model.neighbours", -1, 0),
        ("augment.flip", 1.01, 1),
        ("augment.affine", -0.01, 0),
        ("augment.rotate", -5, 0),
    ],
)
def test_ranges(key: str, bad: object, good: object) -> None:
    load_config("joint", None, [f"{key}={good}"])
    with pytest.raises(ConfigError, match=re.escape(key)):
        load_config("joint", None, [f"{key}={bad}"])


def test_numbers_and_words_that_yaml_reads_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "train:\n  backbone_lr: 1e-4\n  sequence_lr: 1\n  precision: no\n  checkpointing: off\n"
        "model:\n  freeze_bn: on\n"
    )
    config = load_config("joint", file)
    assert config.train.backbone_lr == 0.0001
    assert config.train.sequence_lr == 1.0
    assert isinstance(config.train.sequence_lr, float)
    assert config.train.precision == "no"
    assert config.train.checkpointing == "off"
    assert config.model.freeze_bn is True
    assert load_config("joint", file, ["train.checkpointing=on"]).train.checkpointing == "on"
    assert load_config("joint", file, ["model.freeze_bn=auto"]).model.freeze_bn == "auto"


def test_later_settings_win(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train: {epochs: 7, seed: 7, accumulate: 7}\n")
    base = {"train": {"epochs": 9, "seed": 9, "accumulate": 9, "workers": 9}}
    train = load_config("joint", file, ["train.epochs=1", "train.seed=2", "train.seed=3"], base=base).train
    assert (train.epochs, train.seed, train.accumulate, train.workers) == (1, 3, 7, 9)


def stage_defaults(stage: str) -> dict[str, object]:
    marks = {setting.name: setting.mark(ByStage) for setting in settings_of(TrainConfig)}
    return {name: mark.of(stage) for name, mark in marks.items() if mark is not None}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_fills_what_was_not_set(stage: str) -> None:
    for key, value in stage_defaults(stage).items():
        assert getattr(load_config(stage).train, key) == value
        assert getattr(load_config(stage, None, [f"train.{key}=null"]).train, key) == value
    other = load_config(stage, None, ["train.epochs=11"]).train
    assert other.epochs == 11
    assert other.sequence_lr == stage_defaults(stage)["sequence_lr"]


@pytest.mark.parametrize("stage", STAGES)
def test_saved_and_loaded_is_the_same(stage: str, tmp_path: Path) -> None:
    settings = ["train.precision=no", "train.checkpointing=off", "train.clip_norm=null", "train.backbone_lr=3e-7"]
    settings += ["model.windows=[subdural, brain]", "model.pretrained=some/weights.safetensors", "augment.flip=0.1"]
    settings += ["model.sequence=gru", "model.sequence_inputs=[spacing, position]", "model.channel_dropout=0.3"]
    config = load_config(stage, None, settings)
    save_config(config, tmp_path / "config.yaml")
    for other in STAGES:  # the file says everything, so that no stage's default remains
        assert load_config(other, tmp_path / "config.yaml") == config
    assert load_config(stage, base=config.to_dict()) == config
    assert config != load_config(stage)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"train:\n  epochs: [1\n", "not valid YAML"),
        (b"- train\n", "sections"),
        (b"train: 3\n", "train has to hold keys"),
        (b"\xff\xfe\xfa", "can't be read"),
        (b"train:\n  1: 2\n", "train.1"),
        (b"train:\n  seed: 2001-99-99\n", "train.seed is '2001-99-99'; it has to be int"),
    ],
)
def test_a_file_that_is_no_configuration(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config("joint", file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a [*a]",
        "[" * 60 + "]" * 60,
        "[" + "1," * 20_000 + "]",
        "x" * 300_000,
        f"a: {'9' * 10_000}",
        "a: !!timestamp never",
        "? [1]\n: 2",
    ],
    ids=["aliases", "itself", "levels", "values", "characters", "digits", "tag", "key"],
)
def test_a_text_without_bounds_is_refused_at_once(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bomb\.yaml: not valid YAML"):
        load_config("joint", file)


def test_aliases_and_merged_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("slice: &s\n  epochs: 3\njoint:\n  <<: *s\n  seed: 5\n")
    assert load_config("joint", file).train.epochs == 3
    assert load_config("joint", file).train.seed == 5


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config("slice", tmp_path / "empty.yaml") == load_config("slice")


def test_unknown_stage_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'jiont'.*slice, frozen, joint"):
        load_config("jiont")
    with pytest.raises(ConfigError, match=r"missing\.yaml.*can't be read"):
        load_config("joint", tmp_path / "missing.yaml")


def test_a_stage_has_settings_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("slice:\n  epochs: 3\n  backbone_lr: 3e-3\njoint:\n  epochs: 4\ntrain:\n  epochs: 9\n  seed: 5\n")
    assert load_config("slice", file).train.epochs == 3
    assert load_config("slice", file).train.backbone_lr == 0.003
    assert load_config("joint", file).train.epochs == 4
    assert load_config("joint", file).train.backbone_lr == stage_defaults("joint")["backbone_lr"]
    assert load_config("frozen", file).train.epochs == 9
    assert load_config("frozen", file).train.seed == load_config("slice", file).train.seed == 5
    assert load_config("slice", file, ["joint.epochs=7", "slice.epochs=8"]).train.epochs == 8


@pytest.mark.parametrize("stage", STAGES)
def test_settings_of_another_stage_are_checked_too(stage: str) -> None:
    with pytest.raises(ConfigError, match=r"slice\.epoch; did you mean 'epochs'"):
        load_config(stage, None, ["slice.epoch=3"])
    with pytest.raises(ConfigError, match=r"joint\.epochs is 'many'"):
        load_config(stage, None, ["joint.epochs=many"])


@pytest.mark.parametrize("name", SECTIONS)
def test_every_default_fits_its_own_range(name: str) -> None:
    defaults = {setting.name: setting.default for setting in settings_of(SECTIONS[name])}
    assert read_section(SECTIONS[name], defaults, name) == SECTIONS[name]()


def test_where_a_wrong_value_stood_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("train: {epochs: 0}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: train\.epochs is 0; it has to be at least 1"):
        load_config("joint", tmp_path / "run.yaml", ["train.epochs=3"])
    with pytest.raises(ConfigError, match=r"--set model\.crop=head: model\.crop is 'head'; choose one of series"):
        load_config("joint", None, ["train.epochs=3", "model.crop=head"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.window=1", "train.window is 1; a window has at least 2 slices, and 0 reads whole series"),
        ("train.chunk_size=0", "train.chunk_size is 0; it has to be at least 1"),
        ("train.chunk_size=some", "train.chunk_size is 'some'; it has to be int or auto"),
        ("model.windows=[]", "model.windows is []; name at least one"),
        ("model.windows=[stroke]", "model.windows has 'stroke'; choose one of brain, subdural, soft_tissue, bone"),
        ("model.cross_slice=[4, 4]", "model.cross_slice is [4, 4]; name each once"),
        ("train.ema=1", "train.ema is 1; it has to be between 0 and 1 (1 excluded)"),
    ],
)
def test_what_is_wanted_is_named(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words) + "$"):
        load_config("joint", None, [setting])


def test_weights_are_fetched_by_a_run_and_by_nothing_else() -> None:
    assert ModelConfig().pretrained == "auto"
    assert resolved(ModelConfig()).pretrained is False
    assert resolved(ModelConfig()).freeze_bn is False
    assert resolved(ModelConfig(pretrained="weights.pth")).freeze_bn is True
    assert resolved(ModelConfig(pretrained=True, freeze_bn=False)).freeze_bn is False
    assert load_config("joint").model.pretrained is True
    assert load_config("joint", None, ["model.pretrained=no"]).model.pretrained is False


def test_a_configuration_does_not_change() -> None:
    config = ModelConfig(windows=["brain"])
    assert config.windows == ("brain",)
    with pytest.raises(AttributeError):
        config.image_size = 64  # type: ignore[misc]
    assert hash(config) == hash(ModelConfig(windows=("brain",)))


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_ignores_stands_at_a_value_that_fits(stage: str) -> None:
    ignored = settings_ignored_by(stage)
    config = load_config(stage, base=ignored).to_dict()
    for section, values in ignored.items():
        for key, value in values.items():
            assert config[section][key] == (list(value) if isinstance(value, tuple) else value)
    assert ("mixup" in ignored["train"]) == (stage != "slice")
    assert ("model" in ignored) == (stage == "slice")


def test_the_chunk_has_no_effect_unless_batch_norm_learns() -> None:
    assert settings_without_effect(live_batch_norm=False) - settings_without_effect() == {("train", "chunk_size")}
    assert ("train", "workers") in settings_without_effect()
    known = {(name, setting.name) for name, section in SECTIONS.items() for setting in settings_of(section)}
    assert settings_without_effect(live_batch_norm=False) < known


def test_a_start_needs_the_same_backbone_windows_and_cross_slice() -> None:
    start = ModelConfig("resnet18", windows=["brain"], hidden_size=8, image_size=64)
    assert differing_from_start(ModelConfig("resnet18", windows=["brain"], cross_slice=[4]), start) is None
    assert differing_from_start(ModelConfig("resnet34", windows=["brain"]), start) == "backbone"
    assert differing_from_start(ModelConfig("resnet18"), start) == "windows"
    crossed = ModelConfig("resnet18", windows=["brain"], cross_slice=[8])
    assert differing_from_start(ModelConfig("resnet18", windows=["brain"], cross_slice=[4]), crossed) == "cross_slice"


def test_a_whole_configuration_is_plain() -> None:
    plain = Config(model=ModelConfig(cross_slice=[4, 8])).to_dict()
    assert plain["model"]["cross_slice"] == [4, 8]
    assert list(plain) == list(SECTIONS)
