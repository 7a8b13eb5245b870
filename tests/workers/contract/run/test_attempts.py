from pathlib import Path

import pytest

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.run.attempts import begin, check, check_is_free
from workers.contract.run.folder import RunFolder

SPEC = parse_spec(document(Path("/text.txt")))
LABELLED = parse_spec(document(Path("/text.txt"), labels={"team": "nlp"}))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_attempts_are_counted_and_the_change_between_them_is_told_once(folder: RunFolder) -> None:
    told = []
    for spec in (SPEC, LABELLED, LABELLED):
        begun = begin(folder, spec, folder.path)
        told.append((begun.attempt, list(map(str, begun.changes))))
        folder.lock.release()
    assert told == [(1, []), (2, ["labels.team: None → 'nlp'"]), (3, [])]
    assert (folder.spec(), folder.manifest().attempt) == (LABELLED, 3)


def test_a_folder_of_another_specification_is_refused_and_left_as_it_was_and_free(folder: RunFolder) -> None:
    begin(folder, SPEC, folder.path)
    folder.lock.release()
    with pytest.raises(SpecError, match=r"--run = .* holds a run of another specification") as caught:
        begin(folder, parse_spec(document(Path("/text.txt"), seed=1)), folder.path)
    assert [problem.field for problem in caught.value.problems] == ["--run", "seed"]
    assert folder.spec() == SPEC
    check_is_free(folder)


def test_a_folder_that_is_in_use_is_refused_and_the_message_says_by_whom(folder: RunFolder) -> None:
    begin(folder, SPEC, folder.path)
    other = RunFolder(folder.path)
    for attempt in (lambda: begin(other, SPEC, other.path), lambda: check_is_free(other)):
        with pytest.raises(SpecError, match=r"is in use by attempt 1 \(process \d+ on .*Remedy: name another folder"):
            attempt()
    folder.lock.release()
    check_is_free(other)


def test_a_run_folder_of_a_newer_version_is_refused(folder: RunFolder) -> None:
    folder.store.put("run.json", b'{"format": 99}')
    with pytest.raises(SpecError, match="newer version"):
        begin(folder, SPEC, folder.path)


def test_a_new_folder_has_no_changes(folder: RunFolder) -> None:
    assert check(folder, SPEC) == []
    assert not folder.path.exists()
