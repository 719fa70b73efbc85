"""What joint training can take from others: ways of it at equal cost and at equal slices, each with three seeds.

    python experiments/joint_parts/run.py FOLDER [--jobs 2] [--to sets|costs|pilots|final]

trials.yml lists the ways and networks, ways.py holds what the library did not have when this was measured. FOLDER gets
raw/, prepared/, starts/, costs.json, pilots.csv, final.csv and predictions/; what is there is not done again. Costs are
seconds of the processor, of all ways in turn in one process, so that they compare on a busy machine. Equal cost and
equal slices are numbers of steps that follow from them; no schedule falls to an end, and the moving average of the
weights answers at both.
"""

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ways import PartJoint, add_shift

import ichseq
from ichseq.config import load_config, read_yaml
from ichseq.data.index import ALL_PATIENTS, Index
from ichseq.evaluation.metrics import evaluate_table
from ichseq.files import locked
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.inference.predict import predict_prepared
from ichseq.phantom import write_phantoms
from ichseq.training.loop import Training
from ichseq.training.train import start_training, train_stage

sys.path.append(str(Path(__file__).parents[1]))
from rows import rows_of

HERE = Path(__file__).parent
PLAN = read_yaml(HERE / "trials.yml")
PILOT_SEED = 9
ROUNDS, STEPS_A_ROUND = 5, 2
STEPS = ["sets", "costs", "pilots", "final"]


def make_sets(folder: Path) -> None:
    """Phantoms, prepared."""
    for name, wanted in PLAN["sets"].items():
        raw = folder / "raw" / name
        if not (raw / "stage_2_train.csv").exists():
            write_phantoms(raw, test_patients=0, **wanted)
        ichseq.prepare(raw, folder / "prepared" / name, progress=False)


def training_of(folder: Path, out: Path, network: str, way: str, seed: int, **rates: float) -> Training:
    """A training before its first step, with what the way changes."""
    sections = {name: dict(values) for name, values in PLAN["base"].items()}
    sections["model"] |= PLAN["networks"][network]["model"]
    sections["train"] |= PLAN["networks"][network]["joint"] | rates | {"seed": seed}
    init = start_of(folder, network, seed, sections)
    wanted = dict(PLAN["ways"][way])
    share, others, shift = wanted.pop("share", None), wanted.pop("others", None), wanted.pop("shift", None)
    config = load_config("joint", base=sections, overrides={f"train.{name}": value for name, value in wanted.items()})
    index = Index.load(folder / "prepared" / "training")
    training = start_training(config, "joint", index, ALL_PATIENTS, out, init=init)
    setup = training.setup
    if share is not None:
        stage = PartJoint(config, share, others)
        training.setup = dataclasses.replace(setup, stage=stage)
        setup.accelerator.unwrap_model(setup.loss).stage = stage
    if shift is not None:
        for model in setup.models:
            add_shift(model, shift)
    return training


def start_of(folder: Path, network: str, seed: int, sections: dict[str, Any]) -> Path | None:
    """The slice stage that a network from random weights starts from, the same for all ways; None: ImageNet weights."""
    stage = PLAN["networks"][network].get("slice")
    if stage is None:
        return None
    run = folder / "starts" / f"{network}-seed{seed}"
    with locked(run.with_suffix(".lock"), lambda: False):
        if not (run / "slice" / "all-patients" / "weights.safetensors").exists():
            shutil.rmtree(run, ignore_errors=True)
            config = load_config("slice", stage, base=sections)
            train_stage(
                config, "slice", data=folder / "prepared" / "training", fold=ALL_PATIENTS, out=run, progress=False
            )
    return run / "slice" / "all-patients"


def steps_of(training: Training, cost: dict[str, float]) -> Iterator[None]:
    """Steps without end, each done when it is asked for; seconds are added to `cost`."""
    setup, stage, epoch = training.setup, training.setup.stage, 0
    reader = training.read_ahead()
    while True:
        if isinstance(stage, PartJoint) and (stage.others == "reset" or epoch == 0):
            began = time.process_time()
            stage.remember(setup.model, setup.index, setup.training_series, reader)
            cost["fills"] = cost.get("fills", 0.0) + time.process_time() - began
        plan = setup.plan(epoch)
        batches = training.batches(reader.training(epoch), plan)
        for step in plan:
            began = time.process_time()
            training.begin_epoch()  # scoring may have been between
            training.step(step, batches)
            training.read_losses()
            cost["steps"] = cost.get("steps", 0.0) + time.process_time() - began
            yield
        epoch += 1


def measure(folder: Path, network: str) -> dict[str, dict[str, float]]:
    """Seconds of a step, and of embedding the whole set once, of each way; medians over rounds of all ways in turn."""
    torch.set_num_threads(1)
    ways = PLAN["compared"][network]["ways"]
    spent: dict[str, dict[str, float]] = {way: {} for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as scratch:
        runs = {}
        for way in ways:
            training = training_of(folder, Path(scratch) / way / "joint" / "all-patients", network, way, PILOT_SEED)
            runs[way] = training, steps_of(training, spent[way])
            next(runs[way][1])
        for _ in range(ROUNDS):
            for way, (_, steps) in runs.items():
                before = spent[way]["steps"]
                for _ in range(STEPS_A_ROUND):
                    next(steps)
                seconds[way].append((spent[way]["steps"] - before) / STEPS_A_ROUND)
        return {
            way: {
                "step": statistics.median(seconds[way]),
                "fill": spent[way].get("fills", 0.0),
                "steps_per_epoch": runs[way][0].setup.steps_per_epoch,
            }
            for way in ways
        }


def measure_all(folder: Path) -> None:
    """Costs of all networks' ways, written whenever a network is done."""
    path = folder / "costs.json"
    costs = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for network in PLAN["compared"]:
        if network not in costs:
            costs[network] = measure(folder, network)
            path.write_text(json.dumps(costs, indent=2), encoding="utf-8")


def marks(costs: dict[str, dict[str, float]], network: str, way: str) -> dict[str, int]:
    """After how many steps a way has cost as much as the reference, and after how many it has had as many slices."""
    whole, own, wanted = costs["whole"], costs[way], PLAN["ways"][way]
    epochs = PLAN["networks"][network]["epochs"]
    budget = epochs * whole["steps_per_epoch"] * whole["step"]
    a_step = own["step"]
    if wanted.get("others") == "reset":
        a_step += own["fill"] / own["steps_per_epoch"]
    elif wanted.get("others") == "remembered":
        budget -= own["fill"]
    slices = epochs * own["steps_per_epoch"] / wanted.get("share", 1)
    return {"equal_cost": round(budget / a_step), "equal_slices": round(slices)}


def score(training: Training, folder: Path) -> pd.DataFrame:
    """The prediction table of the second set."""
    index = Index.load(folder / "prepared" / "scored")
    return predict_prepared(ModelEnsemble(training.setup.answering), index, index.training_series(ALL_PATIENTS),
                            threads=0).slices  # fmt: skip


def figures(table: pd.DataFrame) -> dict[str, float]:
    """Loss and AUC for any bleeding, of slices."""
    metrics = evaluate_table(table, None, draws=1)
    return {"loss": metrics["weighted_log_loss"], "auc_any": metrics["labels"]["any"]["auc"]}


def pilot(folder: Path, network: str, backbone_lr: float) -> dict[str, Any]:
    """The reference with another rate of the backbone."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        leaf = Path(scratch) / "joint" / "all-patients"
        training = training_of(folder, leaf, network, "whole", PILOT_SEED, backbone_lr=backbone_lr)
        steps = steps_of(training, {})
        for _ in range(PLAN["networks"][network]["epochs"] * training.setup.steps_per_epoch):
            next(steps)
        return {"network": network, "backbone_lr": backbone_lr, **figures(score(training, folder))}


def finished(folder: Path, network: str, way: str, seed: int) -> dict[str, Any]:
    """One training, scored after as many steps as cost the same as the reference and as have the same slices."""
    torch.set_num_threads(1)
    costs = json.loads((folder / "costs.json").read_text("utf-8"))[network]
    ends, row, spent = marks(costs, network, way), {}, dict[str, float]()
    with tempfile.TemporaryDirectory() as scratch:
        training = training_of(folder, Path(scratch) / "joint" / "all-patients", network, way, seed)
        steps, done = steps_of(training, spent), 0
        for name, end in sorted(ends.items(), key=lambda item: item[1]):
            for _ in range(end - done):
                next(steps)
            done = max(done, end)
            table = score(training, folder)
            path = folder / "predictions" / f"{network}-{way}-seed{seed}-{name}.parquet"
            path.parent.mkdir(exist_ok=True)
            table.to_parquet(path)
            row |= {f"{name}_steps": end, f"{name}_seconds": round(sum(spent.values()), 1)}
            row |= {f"{name}_{figure}": value for figure, value in figures(table).items()}
    return {"network": network, "way": way, "seed": seed, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--to", choices=STEPS, default=STEPS[-1])
    asked = parser.parse_args()
    folder, until = asked.folder, STEPS.index(asked.to)
    make_sets(folder)
    if until >= 1:
        measure_all(folder)
    if until >= 2:
        wanted = [{"network": n, "backbone_lr": float(rate)} for n, rates in PLAN["pilots"].items() for rate in rates]
        rows_of(folder / "pilots.csv", pilot, wanted, folder, asked.jobs)
    if until >= 3:
        wanted = [{"network": network, "way": way, "seed": seed} for network, of in PLAN["compared"].items()
                  for seed in of["seeds"] for way in of["ways"]]  # fmt: skip
        rows_of(folder / "final.csv", finished, wanted, folder, asked.jobs)


if __name__ == "__main__":
    main()
