"""A prediction table as a submission to the RSNA 2019 competition: ID,Label in the order of the sample submission."""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from ichseq.errors import ConfigError, DataError, counted
from ichseq.labels import CLIP_PROBABILITY, LABELS
from ichseq.predictions.smooth import clip
from ichseq.predictions.write import write_table

COLUMNS: Final = ("ID", "Label")


def submission(table: pd.DataFrame, sample: Path, *, least: float = CLIP_PROBABILITY) -> pd.DataFrame:
    """The probabilities of a prediction table, a row for each of the sample submission and in its order.

    Args:
        table: a prediction table.
        sample: the competition's stage_2_sample_submission.csv: ID, which is <sop_uid>_<label>, and Label.
        least: probabilities are clipped to [least, 1 - least].

    Returns:
        ID (text) and Label (float64).

    Raises:
        DataError: the sample is no such file or names a row twice, or the table's slices are not the sample's.
    """
    ids = _read_ids(sample)
    asked, column = _split(ids, sample)
    slices = pd.Index(asked.unique())
    sop_uids = pd.Index(table["sop_uid"])
    _refuse_other_slices(slices, sop_uids, sample)
    values = clip(table, least)[list(LABELS)].to_numpy(dtype=np.float64)
    return pd.DataFrame({"ID": ids, "Label": values[sop_uids.get_indexer(asked), column]})


def write_submission(content: pd.DataFrame, path: Path) -> None:
    """Write what `submission` gave as CSV, beside and then renamed into place.

    Raises:
        ConfigError: the name is that of a Parquet file.
        DataError: the file can't be written.
    """
    check_name(path)
    # Ten digits tell 1 - 1e-5 and its like from 1, which the seven of a prediction table would not always do.
    write_table(content.assign(Label=[f"{value:.10g}" for value in content["Label"].tolist()]), path)


def check_name(path: Path) -> None:
    """Refuse a name under which `write_table` would not write CSV.

    Raises:
        ConfigError: it ends in .parquet.
    """
    if path.suffix == ".parquet":
        raise ConfigError(f"{path}: a submission is CSV; choose another -o")


def _read_ids(sample: Path) -> pd.Series:
    """The IDs of the sample, in order."""
    if not sample.is_file():
        raise DataError(f"{sample}: no such file; name the competition's stage_2_sample_submission.csv")
    try:
        rows = pd.read_csv(sample, dtype="str", keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{sample}: can't be read as CSV ({type(error).__name__}); fetch it again") from None
    if tuple(rows.columns) != COLUMNS:
        raise DataError(f"{sample}: columns {', '.join(map(str, rows.columns))}; a sample submission has ID, Label")
    if rows.empty:
        raise DataError(f"{sample}: no rows; fetch it again")
    twice = rows["ID"].duplicated()
    if twice.any():
        raise DataError(f"{sample}: {counted(int(twice.sum()), 'row')} twice, such as {rows['ID'][twice].iloc[0]}")
    return rows["ID"]


def _split(ids: pd.Series, sample: Path) -> tuple[pd.Series, np.ndarray]:
    """Each row's slice, and the number of its label."""
    parts = [text.rpartition("_") for text in ids.tolist()]
    asked = pd.Series([part[0] for part in parts], dtype="str")
    column = pd.Index(LABELS).get_indexer(pd.Index([part[2] if part[0] else "" for part in parts]))
    if (column < 0).any():
        wrong = ids.iloc[int(np.argmax(column < 0))]
        raise DataError(f"{sample}: ID {wrong} is no <sop_uid>_<label>; the labels are {', '.join(LABELS)}")
    # No row stands twice and every label is known, so that six rows are the six labels.
    rows = asked.value_counts(sort=False)
    short = rows[rows != len(LABELS)]
    if len(short):
        raise DataError(
            f"{sample}: {counted(len(short), 'slice')} without {len(LABELS)} rows, such as {short.index[0]} with "
            f"{short.iloc[0]}; fetch it again"
        )
    return asked, column


def _refuse_other_slices(slices: pd.Index, sop_uids: pd.Index, sample: Path) -> None:
    twice = sop_uids[sop_uids.duplicated()]
    if len(twice):
        raise DataError(
            f"the table holds {counted(len(twice), 'slice')} twice, such as {twice[0]}; predict each scan once"
        )
    unpredicted = slices[~slices.isin(sop_uids)]
    if len(unpredicted):
        raise DataError(
            f"{sample}: {len(unpredicted):,} of its {counted(len(slices), 'slice')} have no prediction, such as "
            f"{unpredicted[0]}; predict every scan of the test set"
        )
    unasked = sop_uids[~sop_uids.isin(slices)]
    if len(unasked):
        raise DataError(
            f"{sample}: does not ask for {len(unasked):,} of the table's {counted(len(sop_uids), 'slice')}, such as "
            f"{unasked[0]}; predict the test set alone"
        )
