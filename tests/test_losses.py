"""The loss against scikit-learn's weighted log loss; unknown labels count for nothing."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from ichseq.labels import LABEL_WEIGHTS
from ichseq.training.losses import label_weight, weighted_bce_sum

WEIGHTS = np.array(LABEL_WEIGHTS)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 6, generator=generator)
    return logits, (torch.rand(40, 6, generator=generator) < 0.3).float()


def by_sklearn(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Weighted log loss over the known labels, all of them in one call."""
    known = ~labels.isnan()
    weights = torch.tensor(WEIGHTS).expand(labels.shape)[known]
    return float(log_loss(labels[known], logits.double().sigmoid()[known], sample_weight=weights, labels=[0, 1]))


def test_mean_is_the_weighted_log_loss(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = pair
    mean = float(weighted_bce_sum(logits, labels)) / label_weight(labels)
    assert mean == pytest.approx(by_sklearn(logits, labels), rel=1e-5)
    columns = [log_loss(labels[:, k], logits[:, k].double().sigmoid()) for k in range(6)]
    assert mean == pytest.approx((6 * np.mean(columns) + columns[-1]) / 7, rel=1e-5)  # as the docstring says
    assert mean != pytest.approx(np.mean(columns), rel=1e-3)  # the weights matter here


def test_unknown_labels_count_for_nothing(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = pair
    labels[::3, 1] = labels[5] = labels[:7, 5] = float("nan")
    mean = float(weighted_bce_sum(logits, labels)) / label_weight(labels)
    assert mean == pytest.approx(by_sklearn(logits, labels), rel=1e-5)
    moved = torch.where(labels.isnan(), logits + 50, logits)
    assert float(weighted_bce_sum(moved, labels)) == float(weighted_bce_sum(logits, labels))
    logits.requires_grad_()
    weighted_bce_sum(logits, labels).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, labels.isnan())


def test_nothing_known_is_zero() -> None:
    labels = torch.full((3, 6), float("nan"))
    logits = torch.ones(3, 6, requires_grad=True)
    loss = weighted_bce_sum(logits, labels)
    loss.backward()
    assert loss.item() == label_weight(labels) == 0
    assert not logits.grad.any()


def test_sums_of_parts_add_up(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = pair
    parts = sum(float(weighted_bce_sum(logits[k : k + 7], labels[k : k + 7])) for k in range(0, 40, 7))
    assert parts == pytest.approx(float(weighted_bce_sum(logits, labels)), rel=1e-5)
    assert label_weight(labels) == 40 * sum(LABEL_WEIGHTS)


def test_large_and_half_precision_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 80, -80, 0, 3]], dtype=torch.bfloat16)
    loss = weighted_bce_sum(logits, torch.tensor([[0.0, 1, 1, 0, 1, 0]]))
    assert loss.dtype == torch.float32
    assert loss.isfinite()
