"""Experiment files: bases, the quick version, plans that can't be carried out."""

from pathlib import Path

import pytest

from ichseq.data.index import ALL_PATIENTS
from ichseq.errors import ConfigError
from ichseq.experiment.spec import load_spec

BASE = """
model: {backbone: test_resnet, pretrained: false, image_size: 64, hidden_size: 8}
slice: {epochs: 5, backbone_lr: 1e-3}
frozen: {epochs: 6}
experiment: {stages: [slice, frozen], folds: [0, 1], slice_bag: 3, bag: 4}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path, "base.yaml", BASE)


def test_a_file_goes_over_its_bases_key_by_key(base: Path, tmp_path: Path) -> None:
    write(tmp_path, "more.yaml", "base: base.yaml\nmodel: {image_size: 96}\nexperiment: {bag: 2}")
    path = write(
        tmp_path, "row.yaml", "base: [base.yaml, more.yaml]\nmodel: {hidden_size: 16}\naugment: {transpose: 0}"
    )
    spec = load_spec(path)
    assert spec.name == "row"
    assert (spec.plan.stages, spec.plan.folds, spec.plan.slice_bag, spec.plan.bag) == (
        ("slice", "frozen"),
        (0, 1),
        3,
        2,
    )
    config = spec.config("frozen")
    assert (config.model.image_size, config.model.hidden_size) == (96, 16)
    assert spec.config("slice").augment.transpose == 0
    assert (config.train.epochs, config.train.keep_epochs) == (6, 2)
    assert spec.config("slice").train.backbone_lr == 1e-3


def test_experiments_that_differ_behind_the_slice_stage_share_it(base: Path, tmp_path: Path) -> None:
    one = load_spec(base)
    text = "base: base.yaml\nmodel: {sequence: gru, hidden_size: 64, channel_dropout: 0.3}\nfrozen: {epochs: 9}"
    other = load_spec(write(tmp_path, "other.yaml", f"{text}\nexperiment: {{slice_bag: 1, bag: 1}}"))
    assert one.config("slice") == other.config("slice")
    assert one.config("frozen") != other.config("frozen")
    assert one.config("slice").train.keep_epochs == 5
    mixing = load_spec(write(tmp_path, "mixup.yaml", "base: base.yaml\nslice: {mixup: 1}"))
    assert one.config("slice") != mixing.config("slice")


def test_epochs_by_fold(base: Path, tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, "row.yaml", "base: base.yaml\nexperiment: {slice_epochs: [5, 7]}"))
    assert [spec.config("slice", place).train.epochs for place in (0, 1)] == [5, 7]


def test_epochs_by_fold_where_other_folds_are_asked_for(base: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "row.yaml", "base: base.yaml\nexperiment: {folds: [0, 1, 2], slice_epochs: [5, 6, 7]}")
    spec = load_spec(path, folds=[2, 0])
    assert [spec.config("slice", place).train.epochs for place in (0, 1)] == [7, 5]
    with pytest.raises(ConfigError, match=r"slice_epochs is for the folds .*says nothing of 3"):
        load_spec(path, folds=[3])
    more = write(tmp_path, "more.yaml", "base: base.yaml\nexperiment: {folds: [1, 2], start: row.yaml}")
    start = load_spec(more).start
    assert start is not None
    assert [start.config("slice", place).train.epochs for place in (0, 1)] == [6, 7]


def test_bags_by_fold(base: Path, tmp_path: Path) -> None:
    text = "base: base.yaml\nexperiment: {folds: [0, 1, 2], slice_epochs: [7, 5, 7], slice_bag: [6, 4, 6]}"
    path = write(tmp_path, "row.yaml", text)
    assert [load_spec(path).plan.bag_of("slice", place) for place in (0, 1, 2)] == [6, 4, 6]
    assert [load_spec(path, folds=[1, 2]).plan.bag_of("slice", place) for place in (0, 1)] == [4, 6]
    assert [load_spec(path).plan.bag_of(stage, 1) for stage in ("frozen", "joint")] == [4, 1]
    write(tmp_path, "quick.yaml", "slice: {epochs: 5}\nexperiment: {slice_bag: 5, bag: 2}")
    assert load_spec(path, quick=True, folds=[3]).plan.slice_bag == 4


def test_quick_goes_over_everything_and_limits_the_bags(base: Path, tmp_path: Path) -> None:
    write(tmp_path, "quick.yaml", "model: {image_size: 32}\nslice: {epochs: 2}\nexperiment: {slice_bag: 2, bag: 5}")
    path = write(tmp_path, "row.yaml", "base: base.yaml\naugment: {flip: 0}\nexperiment: {slice_epochs: [5, 7]}")
    spec = load_spec(path, quick=True, folds=[2])
    assert (spec.plan.slice_bag, spec.plan.bag, spec.plan.folds) == (2, 4, (2,))
    config = spec.config("slice")
    assert (config.model.image_size, config.train.epochs, config.augment.flip) == (32, 2, 0)
    assert spec.config("frozen").train.epochs == 6


def test_quick_keeps_the_family_and_divides_sizes(base: Path, tmp_path: Path) -> None:
    quick = "quick: {backbones: {res: test_resnet, resnext: regnetx_002}, image_size: 4, hidden_size: 8, epochs: 2}"
    write(tmp_path, "quick.yaml", f"{quick}\nmodel: {{pretrained: false}}\nexperiment: {{slice_bag: 2, bag: 5}}")
    text = "base: base.yaml\nmodel: {backbone: resnext101_32x8d, image_size: 382, hidden_size: 1024}"
    path = write(tmp_path, "row.yaml", f"{text}\nexperiment: {{slice_epochs: [7, 5], bag: 6}}")
    spec = load_spec(path, quick=True)
    assert (spec.plan.slice_bag, spec.plan.bag) == (2, 3)
    assert [spec.config(stage).train.epochs for stage in spec.plan.stages] == [4, 3]
    model = spec.config("frozen").model
    assert (model.backbone, model.image_size, model.hidden_size) == ("regnetx_002", 96, 128)
    plain = write(tmp_path, "plain.yaml", "base: base.yaml\nmodel: {backbone: resnet50, image_size: 256}")
    assert load_spec(plain, quick=True).config("slice").model.backbone == "test_resnet"
    other = write(tmp_path, "other.yaml", "base: base.yaml\nmodel: {backbone: vgg11}")
    with pytest.raises(ConfigError, match=r"quick\.backbones has none for vgg11; .* begin with res, resnext"):
        load_spec(other, quick=True)


def test_quick_has_a_rate_of_its_own_for_sgd(base: Path, tmp_path: Path) -> None:
    write(tmp_path, "quick.yaml", "quick: {sgd_rate: 0.03}\nslice: {backbone_lr: 2e-3}\nfrozen: {sequence_lr: 1e-3}")
    path = write(tmp_path, "row.yaml", "base: base.yaml\nfrozen: {optimizer: sgd}")
    spec = load_spec(path, quick=True)
    assert spec.config("slice").train.backbone_lr == 2e-3
    assert spec.config("frozen").train.sequence_lr == 0.03


def test_another_seed(base: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "both.yaml", "experiment: {blend: [base.yaml]}")
    assert load_spec(base).config("slice").train.seed == 0
    assert load_spec(base, seed=3).config("slice").train.seed == 3
    own = write(tmp_path, "own.yaml", "base: base.yaml\nslice: {seed: 7}")
    assert load_spec(own).config("slice").train.seed == 7
    assert load_spec(own, seed=3).config("slice").train.seed == 3
    assert [part.config("frozen").train.seed for part in load_spec(path, seed=3).parts] == [3]


def test_folds_by_name_and_number(base: Path) -> None:
    assert load_spec(base).fold_numbers(5) == [0, 1]
    assert load_spec(base, folds=["all"]).fold_numbers(3) == [0, 1, 2]
    assert load_spec(base, folds=["all-patients"]).fold_numbers(3) == [ALL_PATIENTS]
    for folds in ([5], ["some"], [-1]):
        with pytest.raises(ConfigError, match=f"fold {folds[0]!r} does not exist; the set has folds 0 to 4"):
            load_spec(base, folds=folds).fold_numbers(5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: absent.yaml", "absent.yaml: the configuration can't be read"),
        ("base: bad.yaml", "bad.yaml: is a base of itself"),
        ("base: base.yaml\nexperiment: {stagse: [slice]}", "no key experiment.stagse; did you mean 'stages'?"),
        ("base: base.yaml\nexperiment: {stages: [slice, joined]}", "'joined'; choose one of slice, frozen, joint"),
        ("base: base.yaml\nexperiment: {stages: [frozen, slice]}", "each once, slice before the others"),
        ("base: base.yaml\nexperiment: {stages: []}", "needs stages, or a blend"),
        ("base: base.yaml\nexperiment: {smooth: median}", "'median'; choose one of none, mean, weighted"),
        ("base: base.yaml\nexperiment: {tta: [rotate]}", "'rotate'"),
        ("base: base.yaml\nexperiment: {bag: 7}", "experiment.bag is 7, and frozen.epochs 6"),
        ("base: base.yaml\nexperiment: {slice_bag: 6}", "experiment.slice_bag is 6, and slice.epochs 5"),
        ("base: base.yaml\nexperiment: {slice_epochs: [5, 2]}", "experiment.slice_bag is 3, and slice.epochs 2"),
        ("base: base.yaml\nexperiment: {clip: 0.7}", "experiment.clip is 0.7; it has to be between 0 and 0.5"),
        ("base: base.yaml\nexperiment: {folds: [0, 0]}", "experiment.folds is [0, 0]; each fold once"),
        ("base: base.yaml\nexperiment: {folds: [0, all]}", "each fold once, or all, or all-patients alone"),
        ("base: base.yaml\nexperiment: {slice_epochs: [5, 5, 5]}", "slice_epochs has 3 numbers for 2 folds"),
        ("base: base.yaml\nexperiment: {slice_bag: [3, 3, 3]}", "slice_bag has 3 numbers for 2 folds"),
        ("base: base.yaml\nexperiment: {slice_bag: many}", "slice_bag is 'many'; it has to be int or list"),
        ("base: base.yaml\nexperiment: {slice_bag: []}", "slice_bag has 0 numbers for 2 folds"),
        ("base: base.yaml\nexperiment: {slice_bag: [3, 6]}", "experiment.slice_bag is 6, and slice.epochs 5"),
        ("base: base.yaml\nexperiment: {slice_bag: [3, 0]}", "experiment.slice_bag has 0; it has to be at least 1"),
        ("base: base.yaml\nexperiment: {bag: 0}", "experiment.bag is 0; it has to be at least 1"),
        ("base: base.yaml\nmodle: {image_size: 96}", "no section 'modle'; did you mean 'model'?"),
        ("base: base.yaml\nmodel: {sequence: lstm3}", "model.sequence is 'lstm3'"),
        ("base: base.yaml\nmodel: 3", "model has to hold keys with values"),
        ("experiment: {blend: [base.yaml, bad.yaml]}", "bad.yaml: stands on itself, by start or blend"),
        ("base: base.yaml\nexperiment: {start: bad.yaml}", "bad.yaml: stands on itself, by start or blend"),
        ("experiment: {blend: [absent.yaml]}", "absent.yaml: the configuration can't be read"),
    ],
)
def test_what_does_not_work_is_named(base: Path, tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, "bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_spec(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
