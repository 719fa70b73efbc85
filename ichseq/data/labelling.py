"""Labels for the tables of a set that is being prepared, from the label tables, and how the two fit together."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ichseq.data.exam_labels import by_slices
from ichseq.data.index_files import EXAMS_SCHEMA, SLICES_SCHEMA
from ichseq.data.label_files import (
    ExamLabels,
    ExamSeries,
    Extent,
    LabelFiles,
    exam_labels_of,
    refuse_contradictions,
)
from ichseq.data.summary import LabelCounts
from ichseq.errors import DataError, counted
from ichseq.labels import LABELS
from ichseq.predictions.schema import ExamId


def check_labels(tables: LabelFiles, series: Sequence[ExamId], sop_uids: np.ndarray, lengths: np.ndarray) -> None:
    """See that label tables are of these scans and don't contradict each other, as far as headers tell.

    Args:
        tables: of labels.
        series: that were found.
        sop_uids: of all slices, by series.
        lengths: slices of each series.

    Raises:
        DataError: they are not.
    """
    values = np.full((len(sop_uids), len(LABELS)), np.nan, np.float32)
    if tables.slices is not None:
        values, without_image = tables.slices.match(pa.array(sop_uids).cast(pa.string()))
        if without_image == len(tables.slices.sop_uid):
            raise DataError(
                f"{tables.slices.name}: none of its {without_image} labelled slices is among the {len(sop_uids)} "
                "images of the source; check that they belong together"
            )
    if tables.exams:
        refuse_contradictions(exam_labels_of(tables.exams, series), by_slices(values, lengths))


def refuse_shared_uids(tables: LabelFiles, sop_uids: pa.Array) -> None:
    """Refuse labels of slices whose SOPInstanceUID stands at several images, which would all get the one label.

    Args:
        tables: of labels.
        sop_uids: of all images, copies of one image once.

    Raises:
        DataError: there are such labels.
    """
    if tables.slices is None:
        return
    counts = pc.value_counts(sop_uids)
    several = pc.filter(counts, pc.greater(counts.field("counts"), 1))
    labelled = pc.filter(several, pc.is_in(several.field("values"), value_set=tables.slices.sop_uid))
    if len(labelled):
        images = int(pc.sum(labelled.field("counts")).as_py())
        raise DataError(
            f"{tables.slices.name}: {counted(len(labelled), 'SOPInstanceUID')} of its labels stand at {images:,} "
            f"images, such as {labelled.field('values')[0].as_py()}, so that it is not known which of them is meant; "
            "export the scans again with a UID for each image, or leave these labels out"
        )


def label(
    series: pa.Table, slices: pa.Table, tables: LabelFiles, which: ExamSeries
) -> tuple[pa.Table, pa.Table | None, LabelCounts]:
    """Put labels to the slices and series of a set.

    Args:
        series: rows as in SERIES_SCHEMA, less the fold.
        slices: rows as in SLICES_SCHEMA, less the labels.
        tables: of labels.
        which: of several series of an exam have its labels.

    Returns:
        The slices with their labels; rows as in EXAMS_SCHEMA, None without a table of exams; and how they fitted.

    Raises:
        DataError: an exam contradicts its slices, no exam is among the series, or a labelled UID stands at several
            images.
    """
    values, counts = np.full((len(slices), len(LABELS)), np.nan, np.float32), LabelCounts()
    if tables.slices is not None:
        refuse_shared_uids(tables, slices["sop_uid"].combine_chunks())
        values, without_image = tables.slices.match(slices["sop_uid"].combine_chunks())
        unknown = np.isnan(values)
        none, partly = unknown.all(axis=1), unknown.any(axis=1)
        missing, some = int(none.sum()), int((partly & ~none).sum())
        counts = LabelCounts(tables.slices.name, without_image, missing, some, tables.slices.inconsistent)
    for k, name in enumerate(LABELS):
        slices = slices.append_column(SLICES_SCHEMA.field(name), pa.array(values[:, k]))
    if not tables.exams:
        return slices, None, counts
    lengths = series["n_slices"].to_numpy()
    rows = zip(*(series[name].to_pylist() for name in ExamId._fields), strict=True)
    given = exam_labels_of(tables.exams, [ExamId(*row) for row in rows], _extents(slices, lengths), which)
    unseen = refuse_contradictions(given, by_slices(values, lengths))
    return slices, _exams(given), counts.with_exams(tables.exams, given, unseen)


def _extents(slices: pa.Table, lengths: np.ndarray) -> list[Extent]:
    """How much of a head each series shows."""
    places = slices["position_mm"].to_numpy()
    pieces = np.split(places, np.cumsum(lengths)[:-1])
    return [Extent(len(piece), float(np.max(piece) - np.min(piece))) for piece in pieces]


def _exams(given: ExamLabels) -> pa.Table:
    columns = {"series": np.arange(len(given.values), dtype=np.int32)}
    columns |= {name: given.values[:, k] for k, name in enumerate(LABELS)}
    columns |= {f"agreement_{name}": given.agreement[:, k] for k, name in enumerate(LABELS)}
    return pa.table(columns).cast(EXAMS_SCHEMA)
