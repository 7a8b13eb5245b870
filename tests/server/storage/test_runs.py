import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.jobs.status import JobStatus
from server.settings import Settings
from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.records import Records
from server.storage.runs import RunFolders, read_events
from tests.serving import TINY, run_records, serving
from workers.contract.documents import parse_spec

STEPS = 1200
LAST = STEPS + 3  # two records before the steps, one behind them


def lines(steps: int = STEPS) -> list[bytes]:
    return [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in run_records(steps)]


def test_the_records_of_a_file_are_read_up_to_an_unfinished_line(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines()) + b'{"seq": 1204, "kin')
    batches = list(read_events(tmp_path))
    assert [record.seq for batch in batches for record in batch] == list(range(1, LAST + 1))
    assert max(len(batch) for batch in batches) == 500


@pytest.mark.parametrize("known", [0, 1, 5, LAST])
def test_only_records_behind_a_number_are_read_whatever_stands_before_it(tmp_path: Path, known: int) -> None:
    written = lines()
    damaged = [b"garbage\n"] * known
    damaged[-1:] = written[max(known - 1, 0) : known]  # the known number itself can be read
    (tmp_path / "events.jsonl").write_bytes(b"".join([*damaged, *written[known:]]))
    found = [record for batch in read_events(tmp_path, known) for record in batch]
    assert [record.seq for record in found] == list(range(known + 1, LAST + 1))
    assert {record.kind for record in found} <= {"status", "tensors", "step"}


def test_a_run_that_wrote_nothing_has_no_records(tmp_path: Path) -> None:
    assert [record for batch in read_events(tmp_path) for record in batch] == []


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "test.db")
    yield database
    database.close()


@pytest.mark.parametrize("garbage", [b"garbage\n", b"\0" * 512 + b"\n"])
@pytest.mark.parametrize("place", [0, 1, 4, 7])
def test_a_training_that_succeeded_is_settled_as_such_whatever_became_of_one_line(
    tmp_path: Path, database: Database, garbage: bytes, place: int
) -> None:
    store, records = Store(database), Records(database)
    folders = RunFolders(Settings(tmp_path), store, records)
    job, _ = store.create(parse_spec(TINY))
    folders.prepare(job)
    written = lines(steps=6)
    written[place] = garbage
    (folders.folder(job.id) / "events.jsonl").write_bytes(b"".join(written))
    folders.read_rest(job.id)
    assert store.get(job.id).status is JobStatus.SUCCEEDED
    found = records.read_after(job.id, 0, 100).records
    assert [record["seq"] for record in found] == list(range(1, 10))
    assert found[place]["kind"] == "alert"


def test_settling_goes_on_behind_what_was_pushed(tmp_path: Path, database: Database) -> None:
    store, records = Store(database), Records(database)
    folders = RunFolders(Settings(tmp_path), store, records)
    job, _ = store.create(parse_spec(TINY))
    folders.prepare(job)
    journal = folders.folder(job.id) / "events.jsonl"
    journal.write_bytes(b"".join(lines(steps=6)[:5]))
    folders.read_rest(job.id)
    journal.write_bytes(b"rotten\n" * 4 + b"".join(lines(steps=6)[4:]))
    folders.read_rest(job.id)
    assert store.get(job.id).status is JobStatus.SUCCEEDED
    assert "alert" not in {record["kind"] for record in records.read_after(job.id, 0, 100).records}


@pytest.mark.parametrize("lost", [False, True])
def test_the_next_server_tells_runs_its_new_address_and_keeps_their_tokens(tmp_path: Path, lost: bool) -> None:
    with serving(tmp_path) as first:
        job_id = first.submit()["id"]
        control = first.settings.run_folder(job_id) / "control.json"
        before = json.loads(control.read_text())
        if lost:
            control.unlink()
    with serving(tmp_path) as second:
        after = json.loads(control.read_text())
        assert second.push(job_id, run_records(2))["acknowledged"] == 5
    assert after["url"].startswith(second.url)
    assert before["url"].startswith(first.url)
    assert (after["token"] == before["token"]) is not lost
