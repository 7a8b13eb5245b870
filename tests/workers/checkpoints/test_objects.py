import hashlib
from pathlib import Path

import pytest

from workers.checkpoints.objects import Objects
from workers.contract.manifests import StoredFile
from workers.contract.run.remote import RemoteStore
from workers.contract.run.store import FolderStore, Store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path) if request.param == "folder" else RemoteStore(request.getfixturevalue("bucket"))


def test_what_torch_writes_is_an_object_below_the_prefix_with_its_hash(store: Store) -> None:
    objects = Objects(store, "checkpoints/one")
    path = objects.concat_path("wherever/torch/thinks/it/is", "file")
    assert not objects.exists(path)
    with objects.create_stream(path, "wb") as stream:
        stream.write(b"abc")
    assert store.list() == ["checkpoints/one/file"]
    assert objects.exists(path)
    assert objects.files == {"file": StoredFile(size_bytes=3, sha256=hashlib.sha256(b"abc").hexdigest())}
    with objects.create_stream(path, "rb") as stream:
        assert stream.read() == b"abc"
    objects.rm_file(path)
    assert store.list() == []


def test_what_is_not_written_to_its_end_is_neither_there_nor_among_the_files(store: Store) -> None:
    def write() -> None:
        with objects.create_stream("half", "wb") as stream:
            stream.write(b"half")
            raise RuntimeError("told to end")

    objects = Objects(store, "one")
    with pytest.raises(RuntimeError, match="told to end"):
        write()
    assert (objects.files, store.list()) == ({}, [])


def test_an_object_is_neither_renamed_nor_appended_to(tmp_path: Path) -> None:
    objects = Objects(FolderStore(tmp_path), "one")
    with pytest.raises(NotImplementedError, match="file cannot become other"):
        objects.rename("file", "other")
    with pytest.raises(ValueError, match="mode ab was asked for"), objects.create_stream("file", "ab"):
        pass
