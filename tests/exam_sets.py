"""Prepared sets with other labels than those of their phantoms: of exams alone, or of some slices."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ichseq.data.index import Index
from ichseq.data.index_files import EXAMS_SCHEMA, write_index
from ichseq.labels import LABELS


def with_exam_labels(
    prepared: Path, out: Path, *, with_slices: Sequence[int] = (), without: Sequence[int] = ()
) -> Path:
    """A copy of a set in which only exams have labels.

    Args:
        prepared: a set with labels of slices.
        out: for the copy.
        with_slices: series that have those of their slices too.
        without: series that have none at all.
    """
    shutil.copytree(prepared, out, ignore=shutil.ignore_patterns("embeddings"))
    index = Index.load(prepared)
    slices = pq.read_table(prepared / "slices.parquet")
    kept = np.isin(slices["series"].to_numpy(), with_slices)
    for label in LABELS:
        place = slices.schema.get_field_index(label)
        slices = slices.set_column(
            place, label, pa.array(np.where(kept, slices[label].to_numpy(), np.nan), pa.float32())
        )
    given = np.where(np.isin(np.arange(index.n_series), without)[:, None], np.nan, index.exam_labels)
    columns = {"series": np.arange(index.n_series)} | {label: given[:, k] for k, label in enumerate(LABELS)}
    columns |= {f"agreement_{label}": np.full(index.n_series, np.nan) for label in LABELS}
    settings = {name: index.settings[name] for name in ("folds", "seed", "source", "labels")}
    series = pq.read_table(prepared / "series.parquet")
    write_index(out, series, slices, pa.table(columns).cast(EXAMS_SCHEMA), **settings)
    return out
