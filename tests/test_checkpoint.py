"""Checkpoints: training goes on to the bit; a damaged or half-written one never costs the one before."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from ichseq.errors import RunError
from ichseq.training import checkpoint as ck


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    groups = [{"params": net[0].parameters(), "lr": 0.01}, {"params": net[1:].parameters(), "lr": 0.1}]
    return net, torch.optim.AdamW(groups)


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, stop: int) -> None:
    for step in range(first, stop):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def write(folder: Path, step: int) -> None:
    ck.write_checkpoint(folder, step, {"x": torch.full((500,), float(step))}, {"words": f"step {step}"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_training_goes_on_as_if_never_interrupted(tmp_path: Path) -> None:
    whole, whole_optimizer = network()
    steps(whole, whole_optimizer, 0, 8)

    net, optimizer = network()
    steps(net, optimizer, 0, 5)
    tensors = ck.with_prefix("model", net.state_dict()) | ck.optimizer_tensors(optimizer)
    ck.write_checkpoint(tmp_path / "last", 5, tensors, {"epoch": 1, "history": [0.25, 1e-7]})

    found = ck.read_checkpoint(tmp_path / "last")
    assert found.damaged == {}
    assert {key: found.state[key] for key in ("step", "epoch", "history")} == {
        "step": 5,
        "epoch": 1,
        "history": [0.25, 1e-7],
    }
    other, other_optimizer = network()
    other.load_state_dict(ck.without_prefix("model", found.tensors))
    ck.restore_optimizer(other_optimizer, found.tensors)
    steps(other, other_optimizer, 5, 8)
    for key, value in whole.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key

    fresh, fresh_optimizer = network()  # without the optimizer's state it would be another network
    fresh.load_state_dict(ck.without_prefix("model", found.tensors))
    steps(fresh, fresh_optimizer, 5, 8)
    assert not torch.equal(fresh[0].weight, whole[0].weight)


def test_prefixes_part_again() -> None:
    one, other = {"a.b": torch.ones(1)}, {"a.b": torch.zeros(1)}
    both = ck.with_prefix("model", one) | ck.with_prefix("model_ema", other)
    assert ck.without_prefix("model", both) == one
    assert ck.without_prefix("model_ema", both) == other


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 50, 99999999, 7):  # 7: started anew in the same folder
        if step == 7:
            shutil.rmtree(tmp_path / "step-99999999")
        write(tmp_path, step)
    assert names(tmp_path) == ["step-00000007", "step-00000050"]
    assert ck.read_checkpoint(tmp_path).state["step"] == 50


def test_a_step_may_be_written_again(tmp_path: Path) -> None:
    write(tmp_path, 3)
    ck.write_checkpoint(tmp_path, 3, {"x": torch.zeros(2)}, {})
    assert torch.equal(ck.read_checkpoint(tmp_path).tensors["x"], torch.zeros(2))
    assert names(tmp_path) == ["step-00000003"]


@pytest.mark.parametrize(
    "damage", ["truncated", "bit", "no tensors", "no state", "half state", "other state", "state bit"]
)
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "last", 1)
    write(tmp_path / "last", 2)
    newest = tmp_path / "last" / "step-00000002"
    tensors, state = newest / "state.safetensors", newest / "state.json"
    content = tensors.read_bytes()
    if damage == "truncated":
        tensors.write_bytes(content[:-100])
    elif damage == "bit":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no tensors":
        tensors.unlink()
    elif damage == "no state":
        state.unlink()
    elif damage == "state bit":
        assert '"step": 2' in state.read_text()
        state.write_text(state.read_text().replace('"step": 2', '"step": 3'))
    else:
        state.write_text(state.read_text()[:20] if damage == "half state" else "[]")
    found = ck.read_checkpoint(tmp_path / "last")
    assert found.state["step"] == 1
    assert torch.equal(found.tensors["x"], torch.ones(500))
    (line,) = found.drop_damaged()
    assert str(newest) in line
    assert "damaged" in line
    assert "\n" not in line


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to resume"):
        ck.read_checkpoint(tmp_path / "run" / "last")
    write(tmp_path / "last", 1)
    (tmp_path / "last" / "step-00000001" / "state.json").write_text("")
    with pytest.raises(RunError, match=r"nothing to resume \(1 damaged\)"):
        ck.read_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("room", [0, 100, 1000, 2200])
def test_a_full_disk_costs_only_the_new_one(tmp_path: Path, room: int) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # the system then refuses to write past it
    try:
        with pytest.raises(RunError, match="can't be written") as caught:
            # The tensors need 2 KB, the state 4 KB: with the most room the tensors fit and the state does not.
            ck.write_checkpoint(tmp_path, 3, {"x": torch.zeros(500)}, {"words": "w" * 4000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert ck.read_checkpoint(tmp_path).state["step"] == 2
    write(tmp_path, 3)  # with room again it goes on
    assert ck.read_checkpoint(tmp_path).state["step"] == 3


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "last").write_text("mine")
    with pytest.raises(RunError, match=r"last: the checkpoint can't be written"):
        write(tmp_path / "last", 1)
    assert (tmp_path / "last").read_text() == "mine"


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.part")
    assert ck.read_checkpoint(tmp_path).state["step"] == 1
    write(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert torch.equal(ck.read_checkpoint(tmp_path).tensors["x"], torch.full((500,), 2.0))


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    ck.write_checkpoint(tmp_path, 3, {"a": torch.zeros(2)}, {})
    file = tmp_path / "step-00000003" / "state.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"format": state["format"] + 1}))
    with pytest.raises(RunError, match="newer ichseq; update"):
        ck.read_checkpoint(tmp_path)
