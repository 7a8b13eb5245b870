"""What a store promises, whether it is a folder or on an S3 server."""

from pathlib import Path

import pytest

from workers.contract.run.remote import RemoteStore
from workers.contract.run.store import FolderStore, Store, size_of


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path) if request.param == "folder" else remote(request)


def remote(request: pytest.FixtureRequest) -> RemoteStore:
    return RemoteStore(f"{request.getfixturevalue('bucket')}/runs/one")


def test_what_was_put_is_read_listed_replaced_and_deleted(store: Store) -> None:
    store.put("a/b/c", b"one")
    store.put("a/d", b"two")
    store.put("ab", b"three")
    assert store.list() == ["a/b/c", "a/d", "ab"]
    assert store.list("a") == ["a/b/c", "a/d"]
    store.put("a/d", b"four")
    assert (store.read("a/d"), store.has("a/d"), size_of(store, "a/d")) == (b"four", True, 4)
    assert not store.has("a")
    store.delete("a/d")
    assert (store.has("a/d"), store.list("a")) == (False, ["a/b/c"])


def test_an_object_that_is_being_written_is_not_there_yet(store: Store) -> None:
    with store.writing("folder/object") as file:
        file.write(b"half")
        file.flush()
        assert (store.list(), store.has("folder/object"), file.tell()) == ([], False, 4)
        file.write(b" and half")
    assert store.read("folder/object") == b"half and half"


@pytest.mark.parametrize("size", [4, 12 * 2**20])
def test_where_the_writing_raises_the_object_is_as_it_was(size: int, store: Store) -> None:
    def write(name: str) -> None:
        with store.writing(name) as file:
            file.write(bytes(size))
            raise RuntimeError("told to end")

    store.put("there", b"before")
    for name in ("there", "new"):
        with pytest.raises(RuntimeError, match="told to end"):
            write(name)
    assert (store.list(), store.read("there")) == (["there"], b"before")


def test_an_object_is_read_at_any_place(store: Store) -> None:
    store.put("object", b"0123456789")
    with store.reading("object") as file:
        assert [file.read(2), file.seek(7), file.read(2), file.tell(), file.read()] == [b"01", 7, b"78", 9, b"9"]


def test_all_that_begins_with_a_folder_is_cleared(store: Store) -> None:
    for name in ("a/b/c", "a/d", "ab"):
        store.put(name, b"")
    store.clear("a")
    assert store.list() == ["ab"]


def test_deleting_what_is_not_there_and_listing_nothing_is_no_error(store: Store) -> None:
    store.delete("nowhere/nothing")
    store.clear("nowhere")
    assert store.list("nowhere") == []


def test_reading_what_is_not_there_is_an_error(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    with pytest.raises(FileNotFoundError):
        store.reading("nothing")
    with pytest.raises(FileNotFoundError):
        store.take("ours", store, "nothing")
    assert store.list() == []


@pytest.mark.parametrize("theirs", ["folder", "s3"])
def test_what_is_taken_from_another_store_stays_when_the_other_removes_it(
    theirs: str, store: Store, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    other: Store = FolderStore(tmp_path / "other") if theirs == "folder" else remote(request)
    other.put("theirs", b"content")
    store.put("a/ours", b"before")
    store.take("a/ours", other, "theirs")
    other.delete("theirs")
    assert store.read("a/ours") == b"content"


def test_a_folder_goes_with_its_last_object_but_not_the_folder_that_holds_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("checkpoints/step-1/data", b"")
    store.put("checkpoints/step-1/manifest.json", b"")
    store.delete("checkpoints/step-1/manifest.json")
    assert (tmp_path / "checkpoints" / "step-1").is_dir()
    store.delete("checkpoints/step-1/data")
    assert list((tmp_path / "checkpoints").iterdir()) == []
