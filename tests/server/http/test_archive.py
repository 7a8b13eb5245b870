import io
import os
import tarfile
from pathlib import Path

import pytest

from server.http.archive import Archive

FILES = {"empty": b"", "block": bytes(512), "weights": os.urandom(2**20 + 7)}
SIZES = {name: len(content) for name, content in FILES.items()}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An archive of a folder that is gone by now."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    archive = Archive(tmp_path, SIZES, inside="model")
    for name in FILES:
        (tmp_path / name).unlink()
    return archive


def test_an_archive_has_the_size_that_was_told_and_what_the_folder_held_at_its_beginning(archive: Archive) -> None:
    content = b"".join(archive.chunks())
    assert len(content) == archive.size_bytes
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        read = {member.name: tar.extractfile(member) for member in tar}
        assert {name: file and file.read() for name, file in read.items()} == {
            f"model/{name}": content for name, content in FILES.items()
        }


def test_it_is_read_in_pieces(archive: Archive) -> None:
    assert max(map(len, archive.chunks())) == 2**20


def test_a_file_that_is_shorter_than_was_told_ends_the_archive(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"12")
    archive = Archive(tmp_path, {"weights": 3}, inside="model")
    with pytest.raises(EOFError, match="the last 1 bytes are missing"):
        list(archive.chunks())
