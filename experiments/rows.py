"""Tables of trials that are filled row by row, so that a stopped run goes on; shared by the folders beside."""

from pathlib import Path
from typing import Any

import joblib
import pandas as pd


def rows_of(path: Path, function: Any, wanted: list[dict[str, Any]], folder: Path, jobs: int) -> pd.DataFrame:
    """A table of what a function gives for each of some arguments, written whenever one ends; rows there are kept."""
    rows = pd.read_csv(path, keep_default_na=False).to_dict("records") if path.exists() else []
    missing = [one for one in wanted if not any(all(row[k] == v for k, v in one.items()) for row in rows)]
    calls = (joblib.delayed(function)(folder, **one) for one in missing)
    for row in joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(calls):
        rows.append(row)
        print(row, flush=True)
        pd.DataFrame(rows).sort_values(list(wanted[0])).to_csv(path, index=False)
    return pd.DataFrame(rows)
