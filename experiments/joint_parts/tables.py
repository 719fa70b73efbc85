"""The tables of README.md, from what run.py has left: python experiments/joint_parts/tables.py FOLDER"""

import argparse
import json
from pathlib import Path

import pandas as pd
from run import PLAN

from ichseq.evaluation.compare import paired_difference_of_seeds
from ichseq.evaluation.report import markdown_table

AT = {"equal_cost": "equal cost", "equal_slices": "equal slices"}


def tables_of(folder: Path, network: str, way: str, at: str) -> list[pd.DataFrame]:
    """The prediction tables of all seeds."""
    at = "equal_slices" if way == "whole" else at  # both are the same
    return [
        pd.read_parquet(folder / "predictions" / f"{network}-{way}-seed{seed}-{at}.parquet")
        for seed in PLAN["compared"][network]["seeds"]
    ]


def spread(values: pd.Series, digits: int) -> str:
    """Mean, lowest and highest."""
    return f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def ratio(ones: list[pd.DataFrame], others: list[pd.DataFrame]) -> str:
    """The one loss over the other, with its interval."""
    found = paired_difference_of_seeds(ones, others)
    low, high = found["intervals"]["ratio"]
    return f"{found['ratio']:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    costs, final = json.loads((folder / "costs.json").read_text("utf-8")), pd.read_csv(folder / "final.csv")
    for network, asked in PLAN["compared"].items():
        reference, rows = tables_of(folder, network, "whole", "equal_slices"), []
        for way in asked["ways"]:
            own = final[(final["network"] == network) & (final["way"] == way)]
            rows.append([way, f"{costs[network][way]['step'] / costs[network]['whole']['step']:.2f}"])
            for at in AT:
                compared = "" if way == "whole" else ratio(tables_of(folder, network, way, at), reference)
                rows[-1] += [str(own[f"{at}_steps"].iloc[0]), spread(own[f"{at}_loss"], 4), compared,
                             f"{own[f'{at}_auc_any'].mean():.4f}"]  # fmt: skip
        heads = [f"{what}, {words}" for words in AT.values() for what in ("Steps", "Loss", "Ratio to whole", "AUC any")]
        print(f"### {network}: {PLAN['networks'][network]['model']['backbone']}\n")
        print(markdown_table(["Way", "Cost of a step", *heads], rows), end="\n\n")
    norms = [tables_of(folder, network, "whole", "equal_slices") for network in ("efficientnet_ln", "efficientnet_bn")]
    print(f"Layer norm over batch norm, the same network and steps: {ratio(*norms)}")


if __name__ == "__main__":
    main()
