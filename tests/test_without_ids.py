"""Tables without ids: what stands in them, what does not, and the way back for who has the salt and the scans."""

import numpy as np
import pandas as pd

from ichseq.labels import LABELS
from ichseq.predictions.schema import CHOSEN, EXAM_KEY, ExamId, exam_rows, slice_rows
from ichseq.predictions.without_ids import has_pseudonyms, with_ids, without_ids
from ichseq.pseudonyms import Pseudonyms

EXAMS = [ExamId("SMITH^A", "1.77.1", "1.77.1.1"), ExamId("", "1.77.2", "1.77.2.1")]
NAMES = Pseudonyms(bytes(32))


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = np.linspace(0, 1, 2 * len(LABELS)).reshape(2, -1)
    parts = [
        slice_rows(
            exam, [f"{exam.series_uid}.{n}" for n in (1, 2)], [f"WARD/{n}" for n in (1, 2)], np.arange(2), scores
        )
        for exam in EXAMS
    ]
    return pd.concat(parts, ignore_index=True), exam_rows(parts, [["cut off"], []], weights="0123").assign(
        **{CHOSEN: "the only one", "series_description": "SMITH HEAD", "series_number": 3}
    )


def test_ids_names_and_texts_of_headers_go_and_all_else_stays() -> None:
    for table in tables():
        made = without_ids(table, NAMES)
        assert made.columns.tolist() == table.columns.tolist()
        assert not any(word in made.to_csv() for word in ("SMITH", "1.77.", "WARD"))
        ids = [name for name in (*EXAM_KEY, "sop_uid", "file", "series_description") if name in table.columns]
        pd.testing.assert_frame_equal(made.drop(columns=ids), table.drop(columns=ids))
        assert made["patient_id"].nunique() == len(EXAMS)
        assert (has_pseudonyms(table), has_pseudonyms(made)) == (False, True)


def test_with_the_salt_the_ids_of_known_scans_come_back_and_others_stay_hidden() -> None:
    for table in tables():
        made = without_ids(table, NAMES)
        scans = [(exam, [f"{exam.series_uid}.{n}" for n in (1, 2)]) for exam in EXAMS]
        ids = [name for name in (*EXAM_KEY, "sop_uid") if name in table.columns]
        assert with_ids(made, scans, NAMES)[ids].values.tolist() == table[ids].values.tolist()
        first = with_ids(made, scans[:1], NAMES)
        assert set(first["patient_id"]) == {"SMITH^A", NAMES.patient("1.77.2")}
        pd.testing.assert_frame_equal(with_ids(made, scans, Pseudonyms.draw()), made)


def test_a_table_of_studies_has_pseudonyms_for_all_of_its_series() -> None:
    study = {"patient_id": "SMITH^A", "study_uid": "1.77.1", "taken_series_uid": "1.77.1.1; 1.77.1.2"}
    made = without_ids(pd.DataFrame([{**study, "series_found": 3, "taken": "2: SMITH HEAD"}]), NAMES).iloc[0]
    assert made["patient_id"] == NAMES.patient("SMITH^A")
    assert made["taken_series_uid"] == f"{NAMES.uid('1.77.1.1')}; {NAMES.uid('1.77.1.2')}"
    assert (made["series_found"], made["taken"]) == (3, "")
