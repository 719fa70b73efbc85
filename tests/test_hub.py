"""Networks on the Hugging Face hub: fetched by name, from the cache without a network, and what is refused."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hub_server import Hub
from resealed import edit
from safetensors.torch import load, save
from small_models import small_model

from ichseq import Model
from ichseq.cli import main
from ichseq.documents import file_digest
from ichseq.errors import RunError
from ichseq.html_report.network import networks_of
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.notes import network_note
from ichseq.labels import LABELS
from ichseq.networks import hub as hub_module
from ichseq.networks.hub import forget, hub_folder
from ichseq.runs import names
from ichseq.runs.folders import find_leaves, home_of, models_of

pytest.importorskip("huggingface_hub")
from huggingface_hub import constants

NAME = "hf-hub:owner/net"
CARD = "---\nlicense: mit\ntags:\n- x\n---\n\n# A network\n\n## What it was measured on\n\nNothing\x1b[2J.\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process asks, with a cache of its own."""
    with Hub() as server:
        server.use(monkeypatch, tmp_path / "home")
        yield server
    forget()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a small network, free to be changed."""
    model = small_model(seed=1)
    model.trained_on = {"phantom": False, "network": "somebody else's", "data_key": "k" * 64}
    model.save(tmp_path / "net")
    (tmp_path / "net" / "README.md").write_text(CARD)
    return tmp_path / "net"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_names_of_files_are_those_of_runs() -> None:
    assert hub_module.CALIBRATION == names.CALIBRATION


def test_a_name_loads_the_network_with_its_commit_and_licence(hub: Hub, folder: Path) -> None:
    commit = hub.put("owner/net", files(folder) | {"pytorch_model.bin": b"x", "modeling.py": b"raise SystemExit"})
    model, local = Model.load(NAME, device="cpu"), Model.load(folder, device="cpu")
    for (name, one), other in zip(model.state_dict().items(), local.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert hub.fetched() == {"model.json", "weights.safetensors", "README.md"}
    assert model.trained_on["network"] == f"{NAME}@{commit}"
    assert model.trained_on["licence"] == "mit"
    assert (
        network_note([model])
        == f"network {NAME}@{commit}; licence mit; `ichseq models {NAME}@{commit}` prints its card"
    )
    assert home_of(Path(NAME)) == Path(f"runs/owner--net-{commit[:8]}")
    (place,) = models_of(Path(NAME))
    assert models_of(place) == [place]
    with pytest.raises(RunError, match="is a network by itself and has no folds"):
        find_leaves(Path(NAME), 0)


def test_a_revision_is_that_one_and_a_commit_in_the_cache_asks_no_one(hub: Hub, folder: Path) -> None:
    first = hub.put("owner/net", files(folder))
    hub.repositories["owner/net"].refs["v1"] = first
    edit(folder / "model.json", trained_on={"phantom": True})
    second = hub.put("owner/net", files(folder))
    assert Model.load(f"{NAME}@v1").trained_on["phantom"] is False
    assert Model.load(NAME).trained_on["phantom"] is True
    before = len(hub.asked)
    assert [hub_folder(f"{NAME}@{commit}").name for commit in (first, second)] == [first, second]
    assert len(hub.asked) == before
    third = hub.put("owner/net", files(folder))
    assert hub_folder(NAME).name == second
    forget()
    assert hub_folder(NAME).name == third


@pytest.mark.parametrize("how", ["offline", "no network"])
def test_the_cache_answers_where_the_hub_does_not(
    hub: Hub, folder: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.put("owner/net", files(folder))
    hub.put("owner/other", files(folder))
    assert hub_folder(NAME).name == commit
    forget()
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    before = len(hub.asked)
    assert hub_folder(NAME).name == commit
    words = "HF_HUB_OFFLINE is set" if how == "offline" else "can't be reached"
    with pytest.raises(RunError, match=rf"^hf-hub:owner/other: .*{words}.*no copy; fetch it once"):
        hub_folder("hf-hub:owner/other")
    assert len(hub.asked) == before


def test_a_card_without_a_licence_is_a_line_on_every_prediction(hub: Hub, folder: Path) -> None:
    for card in (CARD.replace("license: mit\n", ""), CARD.replace("mit", "[mit, *x]"), "# No front matter\n"):
        (folder / "README.md").write_text(card)
        hub.put("owner/net", files(folder))
        forget()
        model = Model.load(NAME)
        assert model.trained_on["licence"] is None
        assert "states no licence: ask its authors" in str(network_note([model]))
    (folder / "README.md").write_text(CARD.replace("mit", "other\nlicense_name: house rules"))
    hub.put("owner/net", files(folder))
    forget()
    assert Model.load(NAME).trained_on["licence"] == "house rules"


def test_a_report_shows_the_card_that_is_in_the_cache(hub: Hub, folder: Path) -> None:
    commit = hub.put("owner/net", files(folder))
    model = Model.load(NAME, device="cpu")
    before = len(hub.asked)
    (network,) = networks_of(ModelEnsemble(model))
    assert network.name == f"{NAME}@{commit}"
    assert "Nothing" in str(network.measured)
    assert len(hub.asked) == before
    model.trained_on["network"] = "hf-hub:owner/other@" + "0" * 40  # as a file may claim: no one is asked for it
    hub.put("owner/other", files(folder))
    (network,) = networks_of(ModelEnsemble(model))
    assert network.card is None
    assert len(hub.asked) == before


def test_models_prints_commit_licence_and_card_and_steers_no_terminal(hub: Hub, folder: Path) -> None:
    commit = hub.put("owner/net", files(folder))
    done = CliRunner().invoke(main, ["models", NAME])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:4] == [f"{NAME}@{commit}", "licence mit", "", "# A network"]
    assert "\x1b" not in done.stdout
    assert "tags:" not in done.stdout


def test_what_the_hub_refuses_is_one_line(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("owner/net", files(folder))
    hub.put("owner/gated", files(folder), gated=True)
    hub.put("owner/private", files(folder), private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    for name, words in {
        "hf-hub:owner/none": "no such network, or it is private",
        "hf-hub:owner/private": "no such network, or it is private",
        "hf-hub:owner/net@v9": "no such revision",
        "hf-hub:owner/gated": "accept its terms: do so on http.*/owner/gated",
        "hf-hub:a/b/c": "is no name of the hub",
        "hf-hub:": "is no name of the hub",
    }.items():
        with pytest.raises(RunError, match=words) as caught:
            Model.load(name)
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)


def _without_a_file(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load((folder / "weights.safetensors").read_bytes())
        change(weights)
        (folder / "weights.safetensors").write_bytes(save(weights))
        edit(folder / "model.json", weights_sha256=file_digest(folder / "weights.safetensors"))

    return apply


def _pickle_instead(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))
    edit(folder / "model.json", weights_sha256=file_digest(folder / "weights.safetensors"))


def _pickle_beside(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder / "pytorch_model.bin")


def _config(folder: Path, **values: object) -> None:
    edit(folder / "model.json", config=json.loads((folder / "model.json").read_text())["config"] | values)


REFUSED = {
    "no description": (_without_a_file("model.json"), "has no model.json, so it is no network of ichseq"),
    "a pickle beside": (_pickle_beside, "pytorch_model.bin is a pickle, which could run code"),
    "a pickle instead": (_pickle_instead, r"its model is damaged \(SafetensorError\)"),
    "a missing tensor": (
        _tensors(lambda w: w.pop("slice_head.bias")),
        "lacks 1 tensor, the first slice_head.bias",
    ),
    "an extra tensor": (
        _tensors(lambda w: w.update(more=torch.zeros(1))),
        "has, and the network has not, 1 tensor.* more",
    ),
    "another shape": (
        _tensors(lambda w: w.update({"slice_head.bias": torch.zeros(7)})),
        "has in another shape 1 tensor, the first slice_head.bias",
    ),
    "other weights": (
        lambda folder: (folder / "weights.safetensors").write_bytes(save({"a": torch.zeros(1)})),
        "the weights are not those that were written with it",
    ),
    "other labels": (
        lambda folder: edit(folder / "model.json", labels=list(reversed(LABELS))),
        "its labels are any, subdural, .*; those of ichseq are epidural, ",
    ),
    "a newer format": (lambda folder: edit(folder / "model.json", format=2), "written by a newer ichseq"),
    "an unknown setting": (lambda folder: _config(folder, loader="x.py"), "loader"),
    "something to fetch": (lambda folder: _config(folder, pretrained="/etc/passwd"), "brings its weights"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_is_not_a_sound_network_is_refused(what: str, hub: Hub, folder: Path) -> None:
    change, words = REFUSED[what]
    change(folder)
    hub.put("owner/net", files(folder))
    with pytest.raises(RunError, match=words) as caught:
        Model.load(NAME)
    assert str(caught.value).startswith(NAME)
    assert "\n" not in str(caught.value)
    assert "train it again" not in str(caught.value)
    assert hub.fetched() <= set(hub_module.FILES)


def test_sizes_are_bounded_before_anything_is_fetched(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("owner/net", files(folder))
    monkeypatch.setitem(hub_module.FILES, "weights.safetensors", 1000)
    with pytest.raises(RunError, match=r"weights.safetensors has [\d,]+ bytes; at most 1,000 are fetched"):
        Model.load(NAME)
    assert hub.fetched() == set()
