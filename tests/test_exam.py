"""Exam heads: a series' answer is its own, whatever its length and what it is read with, and weights add up to one."""

import dataclasses
import typing
from pathlib import Path

import pytest
import torch
from resealed import edit
from small_models import small_model
from torch import Tensor

from ichseq import Model
from ichseq.config import ModelConfig
from ichseq.errors import ConfigError, RunError
from ichseq.model.exam import HEADS, Attention, ExamHead, make_exam_head
from ichseq.training.start import start_from

WIDTH = 12
COUNTS = [5, 1, 9, 20]
NAMES = list(HEADS)


def make_head(name: str) -> ExamHead:
    torch.manual_seed(0)
    head = make_exam_head(name, WIDTH)
    assert head is not None
    return head


def slices(counts: list[int] = COUNTS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    n = sum(counts)
    return torch.randn(n, WIDTH, generator=generator), 3 * torch.randn(n, 6, generator=generator)


def test_the_settings_offer_what_there_is() -> None:
    assert set(typing.get_args(typing.get_type_hints(ModelConfig)["exam"])) == {*HEADS, "none"}
    assert make_exam_head("none", WIDTH) is None
    with pytest.raises(ConfigError, match=r"model\.exam is 'mean'; choose one of none, attention, pooled, max"):
        Model("test_resnet", image_size=32, exam="mean")


@pytest.mark.parametrize("name", NAMES)
def test_a_series_alone_gives_what_it_gives_in_a_batch_and_its_order_does_not_matter(name: str) -> None:
    head, (hidden, logits) = make_head(name), slices()
    together = head(hidden, logits, COUNTS)
    assert together.shape == (len(COUNTS), 6)
    parts = zip(hidden.split(COUNTS), logits.split(COUNTS), strict=True)
    for answer, (own, own_logits) in zip(together, parts, strict=True):
        torch.testing.assert_close(head(own, own_logits, [len(own)])[0], answer)
        torch.testing.assert_close(head(own.flip(0), own_logits.flip(0), [len(own)])[0], answer)


@pytest.mark.parametrize("name", NAMES)
def test_an_exam_lies_between_its_slices_and_one_slice_is_its_exam(name: str) -> None:
    head, (hidden, logits) = make_head(name), slices()
    if isinstance(head, Attention):  # whose answer is linear in what it has seen
        logits = head.head(hidden)
    answers = head(hidden, logits, COUNTS)
    for answer, own in zip(answers, logits.split(COUNTS), strict=True):
        assert (answer <= own.amax(0) + 1e-5).all()
        assert (answer >= own.amin(0) - 1e-5).all()
    torch.testing.assert_close(answers[1], logits[COUNTS[0]])


def test_the_pooled_answer_is_the_softmax_weighted_mean_and_nears_the_highest() -> None:
    _, logits = slices([7])
    pooled, highest = (make_head(name)(logits, logits, [7])[0] for name in ("pooled", "max"))
    torch.testing.assert_close(pooled, (logits.softmax(0) * logits).sum(0))
    torch.testing.assert_close(make_head("pooled")(logits, 50 * logits, [7])[0] / 50, highest, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("sequence", ["none", "lstm2", "logits", "gru", "transformer", "conv"])
@pytest.mark.parametrize("exam", NAMES)
def test_it_goes_with_any_sequence_part_and_in_any_batch(exam: str, sequence: str) -> None:
    model = small_model(exam=exam, sequence=sequence, crop="none").eval()
    hu = (torch.randn(12, 40, 40, generator=torch.Generator().manual_seed(2)) * 200).to(torch.int16)
    lengths, places = torch.tensor([3, 8, 1]), torch.arange(12.0)
    with torch.no_grad():
        output = model(hu, lengths, positions_mm=places)
        alone = model(hu[3:11], lengths[1:2], positions_mm=places[3:11])
    assert output.exam_logits is not None
    assert alone.exam_logits is not None
    assert (output.exam_logits.shape, output.exam_logits.dtype) == ((3, 6), torch.float32)
    torch.testing.assert_close(output.exam_logits[1:2], alone.exam_logits, atol=1e-5, rtol=1e-5)
    model.train()
    reached = model(hu, lengths, positions_mm=places).exam_logits
    assert reached is not None
    reached.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.backbone.parameters())
    assert model.exam is not None
    assert all(p.grad is not None and p.grad.any() for p in model.exam.parameters())


def test_a_network_without_a_head_is_what_it_was_and_one_with_has_the_same_weights_beside() -> None:
    plain, asked = small_model(), small_model(exam="attention")
    mine, theirs = plain.state_dict(), asked.state_dict()
    assert {key for key in theirs if key not in mine} == {key for key in theirs if key.startswith("exam.")} != set()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    hu = torch.zeros(2, 40, 40, dtype=torch.int16)
    assert plain(hu, torch.tensor([2])).exam_logits is None
    assert small_model(exam="pooled").state_dict().keys() == mine.keys()


def test_a_fresh_head_answers_near_the_prevalence_of_exams() -> None:
    model = small_model(exam="attention")
    model.set_prior([0.1] * 6, [0.4, 0.4, 0.4, 0.4, 0.4, None])
    assert model.exam is not None
    assert model.exam.head is not None
    torch.testing.assert_close(model.exam.head.bias.sigmoid(), torch.tensor([0.4] * 5 + [0.5]))
    torch.testing.assert_close(model.slice_head.bias.sigmoid(), torch.full((6,), 0.1))


def test_a_start_without_a_head_leaves_a_fresh_one_and_one_with_another_sequence_part_is_not_taken(
    tmp_path: Path,
) -> None:
    starts = {"plain": {}, "exam": {"exam": "attention"}, "gru": {"exam": "attention", "sequence": "gru"}}
    for name, settings in starts.items():
        start = small_model(seed=5, **settings)
        start.trained_on = {"phantom": True}
        start.save(tmp_path / name)
    made: dict[str, dict[str, Tensor]] = {}
    for name, words in (("plain", "; fresh: exam"), ("exam", ""), ("gru", "; fresh: exam, sequence")):
        model = small_model(exam="attention")
        model.trained_on = {"phantom": False}
        assert start_from(model, tmp_path / name) == f"weights from {tmp_path / name}{words}"
        made[name] = model.state_dict()
    fresh, start = small_model(exam="attention").state_dict(), Model.load(tmp_path / "exam").state_dict()
    for key in (key for key in fresh if key.startswith("exam.")):
        assert torch.equal(made["plain"][key], fresh[key])
        assert torch.equal(made["gru"][key], fresh[key])
        assert torch.equal(made["exam"][key], start[key])


def test_a_share_blends_slice_head_and_sequence_part_out_of_training_and_is_saved(tmp_path: Path) -> None:
    model = small_model(exam="max", crop="none", freeze_bn=True).eval()
    hu, lengths = torch.full((4, 40, 40), 40, dtype=torch.int16), torch.tensor([4])
    whole = model(hu, lengths)
    share = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    model.sequence_share = share
    blended = model(hu, lengths)
    expected = torch.tensor(share) * whole.logits + (1 - torch.tensor(share)) * whole.slice_logits
    torch.testing.assert_close(blended.logits, expected)
    assert torch.equal(blended.slice_logits, whole.slice_logits)
    assert torch.equal(model.train()(hu, lengths).logits, model.sequence_logits(model.embed(hu, lengths), lengths))
    model.trained_on = {"phantom": True}
    model.save(tmp_path / "m")
    loaded = Model.load(tmp_path / "m", device="cpu")
    torch.testing.assert_close(loaded(hu, lengths).logits, blended.logits)
    assert dataclasses.asdict(loaded.config) == dataclasses.asdict(model.config)


@torch.no_grad()
def test_an_exam_is_blended_with_its_highest_slice_by_label() -> None:
    share = [0.0, 0.25, 0.5, 0.75, 1.0, 0.5]
    model = small_model(exam="attention").eval()
    embeddings, lengths = 30 * torch.randn(9, model.features), torch.tensor([4, 5])
    plain = model.answer(embeddings, lengths)
    assert plain.exam_logits is not None
    highest = torch.stack([part.amax(0) for part in plain.slice_logits.split([4, 5])])
    surest = float(torch.logit(torch.tensor(1 - 1e-6, dtype=torch.float64)))
    assert highest.abs().max() > 5
    model.exam_share = share
    found = model.answer(embeddings, lengths)
    wanted = torch.lerp(highest.clamp(-surest, surest), plain.exam_logits, torch.tensor(share))
    assert found.exam_logits is not None
    assert torch.allclose(found.exam_logits, wanted, atol=1e-5)
    assert torch.equal(found.logits, plain.logits)


def test_shares_of_exams_travel_with_the_model(tmp_path: Path) -> None:
    model = small_model(exam="attention")
    model.sequence_share, model.exam_share = [0.5] * 6, [0.0, 0.1, 0.2, 0.3, 0.4, 1.0]
    model.save(tmp_path)
    same = Model.load(tmp_path)
    assert (same.sequence_share, same.exam_share) == (model.sequence_share, model.exam_share)
    edit(tmp_path / "model.json", exam_share=[2.0] * 6)
    with pytest.raises(RunError, match="shares are a number from 0 to 1"):
        Model.load(tmp_path)
