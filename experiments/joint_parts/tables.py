"""The tables of README.md, from what run.py has left: python experiments/joint_parts/tables.py FOLDER"""

import argparse
import json
from pathlib import Path

import pandas as pd
from run import PLAN

from ichseq.evaluation.compare import paired_difference_of_seeds
from ichseq.evaluation.report import markdown_table

AT = {"equal_cost": "equal cost", "equal_slices": "equal slices"}


def tables_of(folder: Path, runs: pd.DataFrame, at: str) -> list[pd.DataFrame]:
    """The prediction tables of some runs."""
    names = (f"{one.network}-{one.way}-seed{one.seed}-{at}.parquet" for one in runs.itertuples())
    return [pd.read_parquet(folder / "predictions" / name) for name in names]


def spread(values: pd.Series, digits: int) -> str:
    """Mean, lowest and highest."""
    alone = f"{values.mean():.{digits}f}"
    return alone if len(values) == 1 else f"{alone} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def ratio(ones: list[pd.DataFrame], others: list[pd.DataFrame]) -> str:
    """The one loss over the other, with its interval."""
    found = paired_difference_of_seeds(ones, others)
    low, high = found["intervals"]["ratio"]
    return f"{found['ratio']:.3f} ({low:.3f} to {high:.3f})"


def of_network(folder: Path, network: str, final: pd.DataFrame) -> str:
    """Its ways, each against `whole` with the same seeds."""
    costs = json.loads((folder / "costs.json").read_text("utf-8"))[network]
    whole, rows = final[final["way"] == "whole"], []
    for way in PLAN["compared"][network]["ways"]:
        own = final[final["way"] == way].sort_values("seed")
        if own.empty:
            continue
        reference = tables_of(folder, whole[whole["seed"].isin(own["seed"])], "equal_slices")
        rows.append([way, str(len(own)), f"{costs[way]['step'] / costs['whole']['step']:.2f}"])
        for at in AT:
            compared = "" if way == "whole" else ratio(tables_of(folder, own, at), reference)
            rows[-1] += [str(own[f"{at}_steps"].iloc[0]), spread(own[f"{at}_loss"], 4), compared,
                         f"{own[f'{at}_auc_any'].mean():.3f}"]  # fmt: skip
    heads = [f"{what}, {words}" for words in AT.values() for what in ("Steps", "Loss", "Ratio to whole", "AUC any")]
    return markdown_table(["Way", "Seeds", "Cost of a step", *heads], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    final = pd.read_csv(folder / "final.csv")
    for network in PLAN["compared"]:
        print(f"### {network}: {PLAN['networks'][network]['model']['backbone']}\n")
        print(of_network(folder, network, final[final["network"] == network]), end="\n\n")


if __name__ == "__main__":
    main()
