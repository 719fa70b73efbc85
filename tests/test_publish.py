"""Publishing a run: the folder, its card, the push; loaded by name elsewhere, it answers with the same bits."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TINY
from hub_server import Hub

import ichseq
from ichseq.cli import main
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import ConfigError, RunError
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.networks import shipped
from ichseq.networks.hub import forget
from ichseq.networks.named import card_of_network, is_network, licence_in
from ichseq.phantom import write_phantoms
from ichseq.runs.calibration import find_calibration
from ichseq.runs.folders import find_leaves
from ichseq.runs.records import read_run

pytest.importorskip("huggingface_hub")

ROOT = Path(__file__).parents[1]
NAME = "owner/net"
PROGRAM = """
import sys, ichseq
table = ichseq.predict(sys.argv[1], sys.argv[2], progress=False, device="cpu")
table.to_parquet(sys.argv[3])
print(table.attrs["note"])
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process asks, with a cache and a working folder of its own."""
    with Hub() as server:
        server.use(monkeypatch, tmp_path / "home")
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield server
    forget()


@pytest.fixture(scope="module")
def judged(run: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The leaf of a run that was evaluated and calibrated; not to be changed."""
    out = Path(shutil.copytree(run, tmp_path_factory.mktemp("judged") / "net"))
    (leaf,) = find_leaves(out)
    evaluate_fold(leaf, Index.load(prepared))
    ichseq.calibrate(leaf, 0)
    return leaf


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of other patients; not to be changed."""
    place = tmp_path_factory.mktemp("others")
    write_phantoms(place / "raw", patients=4, test_patients=0, size=48, seed=9, workers=1)
    prepare(place / "raw", place / "set", folds=2, workers=1)
    return place / "set"


def test_the_folder_holds_the_model_and_says_what_it_is_and_nothing_of_the_machine(
    judged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "folder"
    done = CliRunner().invoke(main, ["publish", str(judged), NAME, "--licence", "mit", "--dry-run", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert f"written, not pushed: {out}" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "calibration.json", "model.json", "weights.safetensors"
    ]  # fmt: skip
    for name in ("model.json", "weights.safetensors", "calibration.json"):
        assert (out / name).read_bytes() == (judged / name).read_bytes(), name
    card, run = (out / "README.md").read_text(), read_run(judged)
    metrics = json.loads((judged / "metrics.json").read_text())
    assert licence_in(card) == "mit"
    assert f"| Weighted log loss | {metrics['weighted_log_loss']:.4f} |" in card
    assert f"{len(run['patients'])}, those of its start included" in card
    assert "made-up scans (phantoms)" in card
    assert card.count("not a medical device") == 1
    everything = card + (out / "model.json").read_text() + (out / "calibration.json").read_text()
    patients = [*run["patients"], run["data_folder"], str(judged), str(ROOT)]
    assert not [one for one in patients if one in everything]
    with pytest.raises(RunError, match="folder: is there already"):
        ichseq.publish(judged, NAME, dry_run=out)


def test_a_folder_of_a_dry_run_is_a_network_and_no_run(judged: Path, tmp_path: Path, phantoms: Path) -> None:
    done = ichseq.publish(judged, NAME, dry_run=tmp_path / "folder")
    assert done.remarks == ["no licence is stated, so that others may not use it; give one: --licence apache-2.0"]
    assert is_network(Path(done.name))
    assert not is_network(judged)
    answers = [ichseq.predict(one, phantoms / "stage_2_test", progress=False) for one in (done.name, judged)]
    assert answers[0].equals(answers[1])
    assert find_calibration(Path(done.name)) == find_calibration(judged)
    assert "## What it was measured on" in card_of_network(done.name)
    with pytest.raises(RunError, match="is no run, but a network that was published already"):
        ichseq.publish(done.name, NAME, dry_run=tmp_path / "again")


def test_what_is_loaded_by_name_elsewhere_answers_with_the_same_bits(
    judged: Path, hub: Hub, phantoms: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(main, ["publish", str(judged), NAME, "--licence", "mit"])
    assert done.exit_code == 0, done.output
    commit = hub.repositories[NAME].refs["main"]
    assert f"published: hf-hub:{NAME}@{commit}" in done.stdout
    pushed = hub.repositories[NAME].commits[commit]
    assert pushed["weights.safetensors"] == (judged / "weights.safetensors").read_bytes()
    expected = ichseq.predict(judged, phantoms / "stage_2_test", progress=False, device="cpu")
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **hub.environment(tmp_path / "elsewhere")}
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        table = tmp_path / f"table{len(more)}.parquet"
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, f"hf-hub:{NAME}", phantoms / "stage_2_test", table]
        asked = len(hub.asked)
        ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment | more)
        assert ran.returncode == 0, ran.stderr
        assert (len(hub.asked) == asked) is bool(more)
        found = ichseq.predictions.read.read_table(table)
        assert found[list(LABELS)].equals(expected[list(LABELS)])
        assert f"network hf-hub:{NAME}@{commit}, trained on made-up scans" in ran.stdout
        assert "licence mit" in ran.stdout
    assert (tmp_path / "elsewhere" / "hub" / "models--owner--net" / "snapshots" / commit).is_dir()


def test_a_name_stands_wherever_a_run_is_named(
    judged: Path, hub: Hub, prepared: Path, others: Path, tmp_path: Path
) -> None:
    name = ichseq.publish(judged, NAME, licence="mit").name
    commit, start = name.partition("@")[2], f"hf-hub:{NAME}"
    with pytest.raises(RunError, match=r"was trained on .*; name the run that it was made of, or another set"):
        ichseq.evaluate(start, data=prepared, progress=False)
    scored = ichseq.evaluate(start, data=others, progress=False)
    assert scored.folder.parent == Path(f"runs/owner--net-{commit[:8]}/sets")
    assert find_calibration(Path(start)) == find_calibration(judged)
    fitted = ichseq.calibrate(start, data=others)
    assert find_calibration(Path(name)) == fitted != find_calibration(judged)
    tuned = ichseq.train("frozen", 1, data=others, out=tmp_path / "tuned", init=start, settings=TINY, progress=False)
    (leaf,) = find_leaves(tuned)
    began = f"{name}, licence mit"
    assert f"weights from {began}" in (leaf / "log.txt").read_text()
    model = Model.load(leaf, device="cpu")
    assert model.trained_on["began_from"] == [began]
    assert "network" not in model.trained_on
    ichseq.publish(leaf, "owner/tuned", dry_run=tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert f'base_model: "{NAME}"' in card
    assert f"- began from: {began}" in card


def test_a_later_version_replaces_the_earlier_one_whole(run: Path, judged: Path, hub: Hub) -> None:
    first, second = (ichseq.publish(leaf, NAME, licence="mit") for leaf in (judged, run))
    assert second.remarks == ["the card has no figures, as the run was not evaluated; run `ichseq evaluate` first"]
    before, after = (hub.repositories[NAME].commits[done.name.partition("@")[2]] for done in (first, second))
    assert before.keys() - after.keys() == {"calibration.json"}
    assert find_calibration(Path(f"hf-hub:{NAME}")) is None
    assert find_calibration(Path(first.name)) == find_calibration(judged)


def test_what_was_to_be_private_is_never_pushed_to_a_public_place(judged: Path, hub: Hub) -> None:
    ichseq.publish(judged, "owner/hidden", private=True)
    assert hub.repositories["owner/hidden"].private
    hub.put(NAME, {"README.md": b"mine"})
    with pytest.raises(RunError, match=r"owner/net: is there already and public, so nothing was pushed"):
        ichseq.publish(judged, NAME, private=True)
    assert [*hub.repositories[NAME].commits.values()] == [{"README.md": b"mine"}]


def test_what_can_not_be_pushed_is_one_line(
    judged: Path, scored: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("net", "a/b/c", "owner/n--t", "owner/"):
        with pytest.raises(ConfigError, match="is no name on the hub"):
            ichseq.publish(judged, name)
    with pytest.raises(RunError, match="has 2 models, and one is published"):
        ichseq.publish(scored, NAME)
    with pytest.raises(RunError, match="a network that was published already"):
        ichseq.publish(shipped.DEFAULT, NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    with pytest.raises(RunError, match=r"^hf-hub:owner/net: .*; log in with `hf auth login`, or set HF_TOKEN$"):
        ichseq.publish(judged, NAME)
    hub.close()
    with pytest.raises(RunError, match="can't be reached"):
        ichseq.publish(judged, NAME)
    assert hub.repositories == {}


def test_what_began_from_a_network_that_ships_takes_its_notice_along(judged: Path, tmp_path: Path) -> None:
    leaf = Path(shutil.copytree(judged, tmp_path / "net" / "joint" / "fold0"))
    model = Model.load(leaf)
    model.trained_on["began_from"] = [shipped.DEFAULT]
    model.save(leaf)
    done = ichseq.publish(leaf, NAME, dry_run=tmp_path / "folder")
    notice = (shipped.card_of(shipped.DEFAULT).parent / "NOTICE").read_text()
    assert (tmp_path / "folder" / "NOTICE").read_text() == notice
    assert "notices to go with the weights: NOTICE" in (tmp_path / "folder" / "README.md").read_text()
    assert not any("other weights" in line for line in done.remarks)


def test_figures_of_other_weights_are_not_on_the_card(judged: Path, tmp_path: Path) -> None:
    leaf = Path(shutil.copytree(judged, tmp_path / "net" / "joint" / "fold0"))
    metrics = json.loads((leaf / "metrics.json").read_text())
    (leaf / "metrics.json").write_text(json.dumps(metrics | {"weights": ["0" * 64]}))
    done = ichseq.publish(leaf, NAME, licence="mit", dry_run=tmp_path / "folder")
    assert done.remarks == [
        "figures of a bag, or of other weights, are not on the card; run `ichseq evaluate` for its own",
        "the card has no figures, as the run was not evaluated; run `ichseq evaluate` first",
    ]
    assert "Weighted log loss" not in (tmp_path / "folder" / "README.md").read_text()
