"""A set with pseudonyms is the same set without ids: no file of it holds one, and only its salt leads back."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dicom_files import ct_dataset, dicom_bytes

from ichseq.data.index import Index
from ichseq.data.output import begin
from ichseq.data.prepare import prepare
from ichseq.data.store import read_slices
from ichseq.errors import ConfigError, DataError, ScanError
from ichseq.pseudonyms import SALT, Pseudonyms, kept_salt

PATIENTS = ("SMITH^A", "JONES^B", "", "BAKER^C", "ABBOT^D")


def write_patients(raw: Path, patients: tuple[str, ...] = PATIENTS) -> Path:
    """Three slices a patient, in a folder and files that are called as they are; and one file that is a duplicate."""
    labels = ["sop_uid,any"]
    for k, patient in enumerate(patients):
        folder = raw / f"WARD {patient} {k}"
        folder.mkdir(parents=True)
        for n in (1, 2, 3):
            uids = {"StudyInstanceUID": f"1.77.{k}", "SeriesInstanceUID": f"1.77.{k}.1"}
            own = {"PatientID": patient, "SOPInstanceUID": f"1.77.{k}.1.{n}", "AcquisitionNumber": 1, **uids}
            pixels = np.random.default_rng([k, n]).integers(0, 2000, (16, 12)).astype(np.int16)
            (folder / f"{patient}-{n}.dcm").write_bytes(dicom_bytes(ct_dataset(pixels, number=n, **own)))
            labels.append(f"1.77.{k}.1.{n},{int(k == n)}")
        (folder / f"{patient}-again.dcm").write_bytes((folder / f"{patient}-1.dcm").read_bytes())
        (folder / f"{patient}.txt").write_text("of another kind")
    (raw.parent / "SMITH labels.csv").write_text("\n".join(labels))
    return raw


def prepared(raw: Path, out: Path, **asked: object) -> Index:
    return prepare(raw, out, labels=raw.parent / "SMITH labels.csv", folds=2, workers=1, **asked).index  # type: ignore[arg-type]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "SMITHS")


def everything_written(folder: Path) -> str:
    """Names and contents of all files, those of tables as text."""
    texts = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        texts += [path.name, path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            texts.append(str(pq.read_table(path).to_pylist()))
    return "\n".join(texts)


def test_no_file_of_the_set_holds_an_id_or_a_name(raw: Path, tmp_path: Path) -> None:
    prepared(raw, tmp_path / "plain")
    prepared(raw, tmp_path / "set", pseudonymise=True)
    canaries = ("SMITH", "JONES", "BAKER", "ABBOT", "WARD", "1.77.", "-1.dcm")
    plain, written = everything_written(tmp_path / "plain"), everything_written(tmp_path / "set")
    assert all(canary in plain for canary in canaries)
    assert not any(canary in written for canary in canaries)


def test_pixels_labels_and_patients_are_those_of_the_scans(raw: Path, tmp_path: Path) -> None:
    plain, index = prepared(raw, tmp_path / "plain"), prepared(raw, tmp_path / "set", pseudonymise=True)
    names = kept_salt(tmp_path / "set" / SALT)
    assert index.settings["pseudonyms"] == names.salt_id
    place = {uid: i for i, uid in enumerate(index.series_column("series_uid"))}
    assert len(place) == plain.n_series == index.n_series == len(PATIENTS)
    assert index.n_patients == len(PATIENTS)
    for i in range(plain.n_series):
        row = plain.series_row(i)
        j = place[names.uid(row["series_uid"])]
        assert index.patients()[j] == names.patient(plain.patients()[i])
        assert index.sop_uids(j) == [names.uid(uid) for uid in plain.sop_uids(i)]
        assert np.array_equal(read_slices(index.store_path(j)), read_slices(plain.store_path(i)))
        ours, theirs = (of.labels[of.offsets[k] : of.offsets[k + 1]] for of, k in ((index, j), (plain, i)))
        assert np.array_equal(ours, theirs, equal_nan=True)
    assert sorted(index.patients()) == index.patients(), "the order of the ids must not be that of the rows"
    assert not {path.name for path in (tmp_path / "set").rglob("*.b2nd")} & {
        path.name for path in (tmp_path / "plain").rglob("*.b2nd")
    }


def test_one_salt_gives_one_set_and_new_patients_join_it(raw: Path, tmp_path: Path) -> None:
    salt = tmp_path / "kept apart"
    one, other = (prepared(raw, tmp_path / name, salt_file=salt) for name in ("one", "other"))
    assert one.key == other.key
    assert not (tmp_path / "one" / SALT).exists()
    folds = dict(zip(one.patients(), one.fold.tolist(), strict=True))
    for path in sorted(raw.iterdir()):
        path.rename(tmp_path / path.name)  # the names of folders enter nothing but the column `file`
    more = write_patients(raw, (*PATIENTS, "NEWMAN^E"))
    summary = prepare(more, tmp_path / "one", labels=tmp_path / "SMITH labels.csv", folds=2, salt_file=salt, workers=1)
    assert summary.new_patients == 1
    again = dict(zip(summary.index.patients(), summary.index.fold.tolist(), strict=True))
    assert folds.items() <= again.items()
    assert again.keys() - folds.keys() == {kept_salt(salt).patient("NEWMAN^E")}


def test_ids_and_pseudonyms_never_stand_in_one_set(raw: Path, tmp_path: Path) -> None:
    prepared(raw, tmp_path / "plain")
    prepared(raw, tmp_path / "set", pseudonymise=True)
    with pytest.raises(ConfigError, match="plain: has ids as the scans have them; prepare it without --pseudonymise"):
        prepared(raw, tmp_path / "plain", pseudonymise=True)
    with pytest.raises(ConfigError, match="set: has pseudonyms for ids; prepare it with --pseudonymise"):
        prepared(raw, tmp_path / "set")
    before = everything_written(tmp_path / "set")
    with pytest.raises(DataError, match="made with another salt"):
        prepared(raw, tmp_path / "set", salt_file=tmp_path / "other")
    salt = (tmp_path / "set" / SALT).read_bytes()
    (tmp_path / "set" / SALT).write_text(Pseudonyms.draw().salt.hex())
    with pytest.raises(DataError, match="made with another salt"):
        prepared(raw, tmp_path / "set", pseudonymise=True)
    (tmp_path / "set" / SALT).unlink()
    with pytest.raises(DataError, match=r"salt: is missing, so .* --salt-file"):
        prepared(raw, tmp_path / "set", pseudonymise=True)
    (tmp_path / "set" / SALT).write_bytes(salt)
    prepared(raw, tmp_path / "set", pseudonymise=True)
    assert everything_written(tmp_path / "set") == before


def test_what_gives_no_set_leaves_no_salt_in_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "1.dcm"
    path.parent.mkdir()
    path.write_bytes(dicom_bytes(ct_dataset()))

    def damage(done: int, total: int) -> None:
        if 2 * done == total:  # the header is read
            path.write_bytes(path.read_bytes()[:-50])

    with pytest.raises(ScanError, match="no usable CT slice"):
        prepare(path.parent, tmp_path / "set", folds=1, workers=1, pseudonymise=True, progress=damage)
    assert not (tmp_path / "set").exists()


def test_a_run_that_was_killed_goes_on_with_its_salt(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    begin(tmp_path / "set")
    drawn = kept_salt(tmp_path / "set" / SALT)
    (tmp_path / "set" / f".{SALT}.0123abcd.part").write_text("half")
    assert prepared(raw, tmp_path / "set", pseudonymise=True).settings["pseudonyms"] == drawn.salt_id
    assert {path.name for path in (tmp_path / "set").iterdir() if path.suffix == ".part"} == set()
