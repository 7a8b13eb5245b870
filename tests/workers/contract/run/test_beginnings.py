from pathlib import Path

import pytest

from workers.contract.run.beginnings import Beginning, Beginnings
from workers.contract.run.folder import CheckpointName, RunFolder, RunFolderError
from workers.contract.run.store import FolderStore


def finish(folder: RunFolder, step: int, attempt: int) -> CheckpointName:
    """Put a manifest in place, as an attempt does last."""
    name = CheckpointName(step, attempt)
    folder.store.put(name.manifest, b"{}")
    return name


def begin(folder: RunFolder, attempt: int) -> None:
    folder.take_over(attempt)
    folder.lock.release()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_what_an_attempt_found_first_is_what_counts(tmp_path: Path) -> None:
    beginnings = Beginnings(FolderStore(tmp_path))
    assert beginnings.all() == []
    beginnings.add(2, ["b", "a"])
    beginnings.add(2, ["a", "b", "c"])
    beginnings.add(10, [])
    assert beginnings.all() == [
        Beginning(attempt=2, checkpoints=frozenset("ab")),
        Beginning(attempt=10, checkpoints=frozenset()),
    ]


def test_what_an_attempt_finishes_before_the_next_one_begins_counts_for_good(folder: RunFolder) -> None:
    begin(folder, 1)
    names = [finish(folder, 2, 1), finish(folder, 4, 1)]
    for attempt in (2, 3):
        begin(folder, attempt)
        assert (folder.finished(), folder.late()) == (names, [])
    assert folder.steps_done() == 4


def test_what_an_attempt_finishes_after_a_newer_one_has_begun_never_counts(folder: RunFolder) -> None:
    begin(folder, 1)
    first = finish(folder, 2, 1)
    begin(folder, 2)
    late = finish(folder, 400, 1)
    assert (folder.finished(), folder.late()) == ([first], [late])
    second = finish(folder, 3, 2)
    for attempt in (3, 4):
        begin(folder, attempt)
        assert (folder.finished(), folder.late()) == ([first, second], [late])
    assert folder.steps_done() == 3


def test_an_attempt_that_was_stopped_while_it_began_cannot_make_a_late_checkpoint_count(folder: RunFolder) -> None:
    """Attempt 2 was stopped just before it wrote down what it found, and attempt 3 has begun meanwhile."""
    begin(folder, 1)
    begin(folder, 3)
    late = finish(folder, 400, 1)
    Beginnings(folder.store).add(2, [late.prefix])
    assert folder.late() == [late]


def test_the_checkpoint_that_a_branch_begins_with_may_be_put_back_by_hand(folder: RunFolder) -> None:
    begin(folder, 1)
    put_back = finish(folder, 2, 0)
    assert folder.finished() == [put_back]


def test_a_train_command_that_goes_on_with_a_folder_writes_down_what_it_found_too(folder: RunFolder) -> None:
    first = finish(folder, 2, 1)
    assert folder.begin() == 1
    folder.lock.release()
    assert folder.begin() == 2
    folder.lock.release()
    finish(folder, 4, 1)
    assert folder.finished() == [first]


def test_a_file_that_cannot_be_read_is_named_with_the_remedy(folder: RunFolder) -> None:
    finish(folder, 2, 1)
    folder.store.put("attempts/00000002.json", b"{")
    with pytest.raises(RunFolderError, match=r"attempts/00000002\.json cannot be read: .*; restore it"):
        folder.finished()
