from pathlib import Path

import pytest

from workers.contract.run.store import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_what_was_put_is_read_listed_replaced_and_deleted(store: FolderStore) -> None:
    store.put("a/b/c", b"one")
    store.put("a/d", b"two")
    store.put("ab", b"three")
    assert store.list() == ["a/b/c", "a/d", "ab"]
    assert store.list("a") == ["a/b/c", "a/d"]
    store.put("a/d", b"four")
    assert (store.read("a/d"), store.has("a/d")) == (b"four", True)
    store.delete("a/d")
    assert (store.has("a/d"), store.list("a")) == (False, ["a/b/c"])


def test_an_object_that_is_being_written_is_not_there_yet(store: FolderStore) -> None:
    with store.writing("folder/object") as file:
        file.write(b"half")
        file.flush()
        assert (store.list(), store.has("folder/object")) == ([], False)
    assert store.read("folder/object") == b"half"


def test_a_folder_goes_with_its_last_object_but_not_the_folder_that_holds_it(
    store: FolderStore, tmp_path: Path
) -> None:
    store.put("checkpoints/step-1/data", b"")
    store.put("checkpoints/step-1/manifest.json", b"")
    store.delete("checkpoints/step-1/manifest.json")
    assert (tmp_path / "checkpoints" / "step-1").is_dir()
    store.delete("checkpoints/step-1/data")
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_deleting_what_is_not_there_and_listing_nothing_is_no_error(store: FolderStore) -> None:
    store.delete("nowhere/nothing")
    assert store.list("nowhere") == []


def test_reading_what_is_not_there_is_an_error(store: FolderStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
