"""Folds: a partition by patient, balanced by what the patients bleed, drawn once."""

import numpy as np
import pytest

from ichseq.data.folds import assign_folds, patient_labels
from ichseq.errors import ConfigError


def patients(n: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Identifiers, and labels with the real set's rarity; `any` follows the others."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((n, 6)) < [0.05, 0.15, 0.1, 0.15, 0.2, 0]).astype(np.float32)
    labels[:, 5] = labels.max(axis=1)
    return [f"patient {k}" for k in range(n)], labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5])
def test_every_fold_gets_its_share_of_every_label_and_of_patients(folds: int, seed: int) -> None:
    names, labels = patients(300, seed)
    fold = assign_folds(names, labels, folds=folds, seed=seed)
    counts = np.array([labels[fold == k].sum(axis=0) for k in range(folds)])
    assert np.all(np.abs(counts[:, :5] - labels[:, :5].sum(axis=0) / folds) <= 3)
    assert (counts > 0).all()
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 0.15 * 300 / folds + 3


def test_the_draw_depends_on_seed_and_patients_not_on_their_order() -> None:
    names, labels = patients(100)
    fold = assign_folds(names, labels, folds=5, seed=0)
    shuffled = np.random.default_rng(1).permutation(100)
    again = assign_folds([names[k] for k in shuffled], labels[shuffled], folds=5, seed=0)
    assert np.array_equal(again, fold[shuffled])
    assert not np.array_equal(assign_folds(names, labels, folds=5, seed=1), fold)


def test_patients_keep_their_fold_and_new_ones_fill_the_small_folds() -> None:
    names, labels = patients(100)
    kept = {name: int(k > 20) for k, name in enumerate(names[:60])}  # folds 2 to 4 are empty
    fold = assign_folds(names, labels, folds=5, seed=0, kept=kept)
    assert [kept[name] for name in names[:60]] == fold[:60].tolist()
    assert set(fold[60:]) == {2, 3, 4} | ({0} & set(fold[60:]))
    assert np.bincount(fold[60:], minlength=5)[2:].min() >= 10


def test_patients_without_known_labels_are_spread_evenly() -> None:
    names, labels = patients(23)
    fold = assign_folds(names, np.full_like(labels, np.nan), folds=5, seed=0)
    assert sorted(np.bincount(fold)) == [4, 4, 5, 5, 5]


def test_more_folds_than_patients_are_refused_with_the_number_that_goes() -> None:
    names, labels = patients(3)
    with pytest.raises(ConfigError, match="5 folds asked for, but the source holds 3 patients; ask for at most 3"):
        assign_folds(names, labels, folds=5, seed=0)
    assert sorted(assign_folds(names, labels, folds=3, seed=0)) == [0, 1, 2]
    assert assign_folds(names, labels, folds=1, seed=0).tolist() == [0, 0, 0]


def test_a_patient_has_the_highest_known_label_of_its_slices() -> None:
    nan = np.nan
    slices = np.array([[0, 1, nan, 0, 0, 1], [1, 0, nan, nan, 0, 1], [nan] * 6], np.float32)
    expected = np.array([[1, 1, nan, 0, 0, 1], [nan] * 6], np.float32)
    assert np.array_equal(patient_labels(np.array([0, 0, 1]), slices, 2), expected, equal_nan=True)
