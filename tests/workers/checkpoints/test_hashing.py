import hashlib
from contextlib import suppress
from pathlib import Path

import pytest

from workers.checkpoints.errors import DamagedError
from workers.checkpoints.hashing import Writer, check_file
from workers.contract.manifests import StoredFile
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.run.store import FolderStore

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of the three bytes, from FIPS 180-2


def test_a_file_with_the_bytes_that_were_written_passes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    check_file(FolderStore(tmp_path), "file", StoredFile(size_bytes=3, sha256=ABC))


def test_without_a_hash_the_size_alone_is_compared(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abd")
    check_file(FolderStore(tmp_path), "file", StoredFile(size_bytes=3))
    with pytest.raises(DamagedError, match="has 3 bytes; 4 were written"):
        check_file(FolderStore(tmp_path), "file", StoredFile(size_bytes=4))


def test_other_bytes_of_the_same_size_are_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abd")
    with pytest.raises(DamagedError, match=f"{ABC} was written"):
        check_file(FolderStore(tmp_path), "file", StoredFile(size_bytes=3, sha256=ABC))


@pytest.mark.usefixtures("alone")
def test_a_file_that_was_not_written_to_its_end_is_neither_there_nor_among_the_files(tmp_path: Path) -> None:
    writer = Writer(RunFolder(tmp_path), CheckpointName(1, 1))
    with suppress(RuntimeError), writer.fs.create_stream("half", "wb") as stream:
        stream.write(b"half")
        raise RuntimeError("the worker is told to end")
    assert writer.files == {}
    assert not list(tmp_path.rglob("*half*"))


@pytest.mark.usefixtures("alone")
def test_the_hash_is_that_of_what_lies_on_the_disk(tmp_path: Path) -> None:
    writer = Writer(RunFolder(tmp_path), CheckpointName(1, 1))
    with writer.fs.create_stream("numbers", "wb") as stream:
        for number in range(1000):
            stream.write(str(number).encode())
    content = (tmp_path / "checkpoints" / "step-00000001-a1" / "numbers").read_bytes()
    stored = StoredFile(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert writer.files == {"numbers": stored}
