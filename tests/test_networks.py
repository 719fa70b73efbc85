"""Networks that ship: found by name, checked by checksum, asked where no run is named, and a start to train from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ichseq
from ichseq.api import predict_scans
from ichseq.data.index import Index
from ichseq.errors import IchseqError, RunError
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.model.saved import DESCRIPTION, WEIGHTS
from ichseq.networks import shipped
from ichseq.runs.calibration import find_calibration
from ichseq.runs.folders import find_leaves, models_of
from ichseq.runs.records import read_run
from ichseq.training.folds import train_folds

ROOT = Path(__file__).parents[1]
PACK = ROOT / "experiments" / "shipped" / "pack.py"
SMALL = ["model.backbone=test_resnet", "model.image_size=32", "model.hidden_size=8", "model.pretrained=false",
         "train.epochs=1", "train.workers=1"]  # fmt: skip


def pack(run: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A network that ships, made of a run as the real one is."""
    command = [sys.executable, str(PACK), str(run), str(folder), "--patients", "1", *more]
    return subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(scope="module")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a packed network, "small-1"; not to be changed."""
    folder = tmp_path_factory.mktemp("networks") / "small-1"
    folder.mkdir()
    (folder / "NOTICE").write_text("free\n")
    done = pack(run, folder, "--scans", "ten phantoms")
    assert done.returncode == 0, done.stderr
    assert "largest change of a probability" in done.stdout
    return folder


@pytest.fixture
def small(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packed network where networks ship from, free to be changed, and a working folder of its own."""
    folder = Path(shutil.copytree(packed, tmp_path / "installed" / packed.name))
    monkeypatch.setattr(shipped, "_PLACE", folder.parent)
    monkeypatch.setattr(shipped, "DEFAULT", packed.name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_packing_halves_the_weights_and_keeps_nothing_of_the_machine(packed: Path, run: Path) -> None:
    (leaf,) = models_of(run)
    before, after = load_file(leaf / WEIGHTS), load_file(packed / WEIGHTS)
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert after[name].dtype == (torch.float16 if tensor.ndim > 1 else tensor.dtype)
        assert torch.allclose(after[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-6)
    known = json.loads((packed / DESCRIPTION).read_text())["trained_on"]
    assert (known["network"], known["scans"]) == ("small-1", "ten phantoms")
    everything = (packed / DESCRIPTION).read_text() + (packed / shipped.CHECKSUMS).read_text()
    assert not any(word in everything for word in (str(run), str(packed), str(ROOT), "/tmp", "/home"))
    assert (shipped.WEIGHTS, shipped.DESCRIPTION) == (WEIGHTS, DESCRIPTION)


def test_packing_wants_one_model_and_a_notice(scored: Path, tmp_path: Path) -> None:
    assert "NOTICE: is not there" in pack(scored, tmp_path).stderr
    (tmp_path / "NOTICE").touch()
    assert "has 2 models, one ships" in pack(scored, tmp_path).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["NOTICE"]


def test_a_name_loads_the_network_in_full_precision(small: Path, run: Path) -> None:
    model = Model.load("small-1", device="cpu")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    original = Model.load(find_leaves(run)[0], device="cpu")
    for one, other in zip(model.parameters(), original.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    assert not model.training


def test_a_folder_of_the_name_wins(small: Path, run: Path) -> None:
    assert models_of(Path("small-1")) == [small]
    shutil.copytree(run, "small-1")
    assert models_of(Path("small-1")) == [Path("small-1") / "joint" / "fold0"]
    with pytest.raises(RunError, match="small-1: no model there"):
        Model.load("small-1")
    assert models_of(small) == [small]
    assert shipped.default_network() == small


@pytest.mark.filterwarnings("ignore:network")
def test_without_a_run_the_default_answers_and_points_to_its_card(small: Path, phantoms: Path) -> None:
    scans = phantoms / "stage_2_test"
    by_default, by_name, by_model = (
        ichseq.predict(asked, scans, progress=False) for asked in (None, "small-1", Model.load("small-1", device="cpu"))
    )
    assert by_default.equals(by_name)
    assert np.allclose(by_default[list(LABELS)], by_model[list(LABELS)], atol=1e-6)
    note = by_default.attrs["note"]
    assert "made-up bleeding only" in note
    assert "`ichseq models small-1`" in note
    outcome = predict_scans(None, scans, progress=False)
    assert (outcome.note, note in outcome.exams.loc[0, "warnings"]) == (note, True)


def test_the_notes_of_several_stand_together_once_each(small: Path, run: Path, phantoms: Path) -> None:
    outcome = predict_scans(["small-1", run, "small-1"], phantoms / "stage_2_test", progress=False)
    assert outcome.note is not None
    assert outcome.note.count("network small-1 has seen") == outcome.note.count("these weights were") == 1


def test_a_name_that_does_not_exist_lists_those_that_do(small: Path, run: Path) -> None:
    shutil.copytree(run, "runs/mine")
    with pytest.raises(RunError, match=r"^small-2: no such run; there are small-1, runs/mine$"):
        models_of(Path("small-2"))
    with pytest.raises(RunError, match=r"small-2: no model there .* small-1$"):
        Model.load("small-2")
    with pytest.raises(RunError, match=r"small-2: no network of that name .* small-1$"):
        shipped.card_of("small-2")
    with pytest.raises(RunError, match="small-1: ships with ichseq and has no folds"):
        find_leaves(Path("small-1"), 0)


def test_a_network_that_ships_is_judged_and_calibrated_on_a_set_of_ones_own(small: Path, prepared: Path) -> None:
    before = sorted(small.iterdir())
    scored = ichseq.evaluate("small-1", data=prepared, progress=False)
    assert scored.folder.parent == Path("runs/small-1/sets")
    assert scored.metrics["n_exams"] == Index.load(prepared).n_series
    fitted = ichseq.calibrate("small-1", data=prepared)
    assert Path("runs/small-1/calibration.json").is_file()
    assert sorted(small.iterdir()) == before
    assert find_calibration(Path("small-1")) == find_calibration(small) == fitted
    with pytest.raises(RunError, match="small-1: ships with ichseq and has no folds"):
        ichseq.evaluate("small-1", 0, data=prepared, progress=False)


def test_a_calibration_that_ships_is_that_of_the_network_until_another_is_made(small: Path, prepared: Path) -> None:
    ichseq.evaluate("small-1", data=prepared, progress=False)
    shipping = ichseq.calibrate("small-1", data=prepared)
    Path("runs/small-1/calibration.json").rename(small / "calibration.json")
    assert find_calibration(Path("small-1")) == shipping
    other = ichseq.calibrate("small-1", data=prepared, method="temperature")
    assert find_calibration(Path("small-1")) == other != shipping


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, shipped.CHECKSUMS])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_damage_is_one_line_that_says_to_install_again(small: Path, name: str, how: str) -> None:
    file = small / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2 - 20] ^= 1
    file.unlink() if how == "gone" else file.write_bytes(content if how == "changed" else content[: len(content) // 2])
    for use in (
        lambda: Model.load("small-1"),
        lambda: Model.load(small / WEIGHTS),
        lambda: shipped.described("small-1"),
    ):
        with pytest.raises(IchseqError, match=r"pip install --force-reinstall --no-deps ichseq$") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_training_starts_from_a_name_and_the_result_is_no_longer_that_network(
    small: Path, prepared: Path, tmp_path: Path
) -> None:
    (leaf,) = train_folds("frozen", [1], source=None, overrides=SMALL, data=prepared, out=tmp_path / "tuned",
                          init=Path("small-1"), progress=False)  # fmt: skip
    tuned, start = Model.load(leaf, device="cpu"), Model.load("small-1", device="cpu")
    for one, other in zip(tuned.backbone.parameters(), start.backbone.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "network" not in tuned.trained_on
    assert tuned.trained_on["phantom"] is True
    own = len({Index.load(prepared).patients()[i] for i in Index.load(prepared).training_series(1)})
    assert len(read_run(leaf)["patients"]) == own


# ---- what this copy of ichseq ships -------------------------------------------------------------------------------


def test_the_default_network_is_there_and_small() -> None:
    assert shipped.default_network().name in shipped.shipped_names()
    for name in shipped.shipped_names():
        folder = shipped.card_of(name).parent
        shipped.check(folder)
        assert (folder / WEIGHTS).stat().st_size <= 12_000_000
        assert (folder / shipped.NOTICE).stat().st_size > 1000
        assert name in shipped.described(name)


def test_the_card_is_that_of_the_documents() -> None:
    card = (ROOT / "docs" / "model-card.md").read_text()
    assert shipped.card_of(shipped.DEFAULT).read_text() == card, (
        "cp docs/model-card.md ichseq/networks/phantom-1/CARD.md"
    )
    for section in ("trained on", "make it again", "measured on", "fails", "must not be used for", "Licence"):
        assert any(line.startswith("## ") and section in line for line in card.splitlines()), section


@pytest.mark.filterwarnings("ignore:network")
def test_the_default_network_answers(phantoms: Path) -> None:
    table = ichseq.predict(None, phantoms / "stage_2_test", progress=False)
    assert table[list(LABELS)].to_numpy().std() > 0
    assert Model.load(shipped.DEFAULT).trained_on["phantom"] is True
