"""Pseudonyms are stable, valid, and another salt's are others; a salt is its owner's alone."""

import doctest
import re
import stat
from pathlib import Path

import pytest
from pydicom.uid import UID

import ichseq.pseudonyms
from ichseq.errors import DataError
from ichseq.pseudonyms import Pseudonyms, is_pseudonym, kept_salt, read_salts, write_salts

IDS = ["ID_1", "ID_2", "", "0815", "Grün", "bad\udcffbytes", "x" * 500]


def test_one_salt_gives_one_pseudonym_and_another_salt_another() -> None:
    one, same, other = Pseudonyms(b"1" * 32), Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)
    for make in ("patient", "file", "uid"):
        made = [getattr(one, make)(text) for text in IDS]
        assert made == [getattr(same, make)(text) for text in IDS]
        assert len(set(made)) == len(IDS)
        others = {getattr(other, make)(text) for text in IDS if text or make != "uid"}
        assert not set(made) & others
    assert one.salt_id == same.salt_id != other.salt_id
    assert one.patient("A")[2:] != one.file("A")[2:]


def test_pseudonyms_stay_what_they_were() -> None:
    done = doctest.testmod(ichseq.pseudonyms)
    assert (done.failed, done.attempted > 0) == (0, True)


def test_uids_stay_valid_and_patients_are_known_as_pseudonyms() -> None:
    names = Pseudonyms.draw()
    for text in IDS:
        assert not text or UID(names.uid(text)).is_valid
        assert is_pseudonym(names.patient(text))
    assert not any(map(is_pseudonym, IDS))
    assert names.exam("", "1.2", "1.2.3") == (names.patient("1.2"), names.uid("1.2"), names.uid("1.2.3"))


def test_nothing_that_is_shown_holds_the_salt() -> None:
    names = Pseudonyms.draw()
    shown = repr(names) + names.salt_id + names.key_for("store") + names.patient("A") + names.uid("A")
    assert not any(names.salt.hex()[k : k + 16] in shown for k in range(0, 64, 16))
    assert str(names.salt) not in shown


def test_a_new_salt_is_drawn_once_and_its_owners_alone(tmp_path: Path) -> None:
    first = kept_salt(tmp_path / "salt")
    assert stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600
    assert kept_salt(tmp_path / "salt").salt == first.salt
    assert kept_salt(tmp_path / "other").salt != first.salt
    write_salts(tmp_path / "both", [first, Pseudonyms(b"2" * 32)])
    assert [one.salt for one in read_salts(tmp_path / "both")] == [first.salt, b"2" * 32]
    assert {path.name for path in tmp_path.iterdir()} == {"salt", "other", "both"}


@pytest.mark.parametrize("content", ["", "abc", "g" * 64, "0" * 63, "0" * 64 + " x", "\udc80"])
def test_what_is_no_salt_is_named_and_not_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "salt").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'salt'}: is no salt")) as caught:
        kept_salt(tmp_path / "salt")
    assert not content.strip() or content not in str(caught.value)


def test_a_salt_that_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be written"):
        kept_salt(tmp_path / "gone" / "salt")
    with pytest.raises(DataError, match="can't be read"):
        read_salts(tmp_path / "salt")
