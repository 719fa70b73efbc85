"""The key object selection: which slices, and which pictures of them, to look at."""

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ichseq.ct.series import Series
from ichseq.dicom_results.identity import Answerer
from ichseq.dicom_results.report import observer
from ichseq.dicom_results.words import RESEARCH_ONLY, equipment


def key_objects(
    objects: Sequence[Dataset], series: Series, answerer: Answerer, kinds: Sequence[str]
) -> KeyObjectSelectionDocument:
    """The selection of an exam.

    Args:
        objects: the key slices, as `reference` gives them, and the captures of them.
        series: the exam's.
        answerer: what answered.
        kinds: what was flagged.
    """
    content = KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=list(objects),
        observer_device_context=observer(answerer),
        description=f"{RESEARCH_ONLY}. Flagged: {', '.join(kinds)}",
    )
    return KeyObjectSelectionDocument(
        evidence=list(objects),
        content=content,
        series_instance_uid=answerer.uid_in(series, "key objects series"),
        sop_instance_uid=answerer.uid_in(series, "key objects"),
        instance_number=1,
        **equipment("key objects"),
    )
