import hashlib
import json
import os
from pathlib import Path

import pytest

from workers.contract.sources import CorpusError
from workers.contract.text_files import TextFile
from workers.corpus.hashes import hash_texts

LONG_AGO_NS = 10**18


def age(index: Path) -> None:
    """Have the index say that the files changed long before they were hashed."""
    index.write_text(json.dumps([known | {"is_settled": True} for known in json.loads(index.read_text())]))


def forge(index: Path) -> None:
    """Put another hash in the index, so that a test sees whether it was taken from there."""
    index.write_text(json.dumps([known | {"sha256": "known"} for known in json.loads(index.read_text())]))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("Some text.")
    return path


@pytest.fixture
def index(text: Path, tmp_path: Path) -> Path:
    hash_texts([TextFile(str(text))], tmp_path / "data")
    (index,) = (tmp_path / "data").glob("texts-*.json")
    age(index)
    forge(index)
    return index


def test_a_hash_is_that_of_the_bytes(text: Path, tmp_path: Path) -> None:
    (hashed,) = hash_texts([TextFile(str(text))], tmp_path / "data")
    assert (hashed.bytes, hashed.sha256) == (10, hashlib.sha256(b"Some text.").hexdigest())


def test_a_file_with_the_same_path_size_and_times_is_not_read_again(text: Path, index: Path) -> None:
    assert hash_texts([TextFile(str(text))], index.parent)[0].sha256 == "known"


@pytest.mark.parametrize("change", ["size", "time", "content under the old time stamp", "another file in its place"])
def test_a_file_that_differs_in_any_of_them_is_read_again(text: Path, index: Path, change: str) -> None:
    modified_ns = text.stat().st_mtime_ns
    if change == "size":
        text.write_text("Some more text.")
    elif change == "time":
        os.utime(text, ns=(LONG_AGO_NS, LONG_AGO_NS))
    elif change == "content under the old time stamp":
        text.write_text("Sane text.")
        os.utime(text, ns=(modified_ns, modified_ns))
    else:
        text.with_name("copy").write_text("Home text.")
        os.utime(text.with_name("copy"), ns=(modified_ns, modified_ns))
        text.with_name("copy").replace(text)
    (hashed,) = hash_texts([TextFile(str(text))], index.parent)
    assert hashed.sha256 == hashlib.sha256(text.read_bytes()).hexdigest()


def test_a_file_that_had_changed_just_before_is_read_again(text: Path, tmp_path: Path) -> None:
    # A second change within the resolution of the time stamp would not show.
    hash_texts([TextFile(str(text))], tmp_path / "data")
    (index,) = (tmp_path / "data").glob("texts-*.json")
    forge(index)
    assert hash_texts([TextFile(str(text))], tmp_path / "data")[0].sha256 != "known"


def test_hashes_follow_the_order_of_the_files(text: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.txt"
    other.write_text("Another.")
    there, back = (
        hash_texts([TextFile(str(text)), TextFile(str(other))], tmp_path / "data"),
        hash_texts([TextFile(str(other)), TextFile(str(text))], tmp_path / "data"),
    )
    assert there == back[::-1]


@pytest.mark.parametrize("content", ["", "[{}]", "\0"])
def test_an_index_that_cannot_be_read_is_made_anew(text: Path, index: Path, content: str) -> None:
    index.write_text(content)
    assert hash_texts([TextFile(str(text))], index.parent)[0].sha256 == hashlib.sha256(b"Some text.").hexdigest()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"gone\.txt: cannot be read \(No such file"):
        hash_texts([TextFile(str(tmp_path / "gone.txt"))], tmp_path / "data")


def test_a_file_whose_name_is_not_utf_8_is_hashed_and_known_again(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("Some text.")
    first = hash_texts([TextFile(str(path))], tmp_path / "data")
    (index,) = (tmp_path / "data").glob("texts-*.json")
    age(index)
    forge(index)
    assert first[0].sha256 == hashlib.sha256(b"Some text.").hexdigest()
    assert hash_texts([TextFile(str(path))], tmp_path / "data")[0].sha256 == "known"
