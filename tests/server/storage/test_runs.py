import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import FilesLeftError, TransitionError
from server.jobs.job import new_job_id
from server.jobs.status import JobStatus
from server.settings import Settings
from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.records import Records
from server.storage.runs import RunFolders, read_events
from tests.server.http.routes.test_clones import put_checkpoint
from tests.serving import TINY, Served, run_records, serving
from tests.workers.object_store import nothing
from tests.workers.object_store import serving as serving_s3
from workers.contract.documents import parse_spec
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.spec.start_from import StartFrom

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


def take_for_a_branch(server: Served, parent: str) -> RunFolder:
    """Do the first half of accepting a branch, as a server that is then killed."""
    job_id, start = new_job_id(), StartFrom(run=parent, step=4)
    server.parts.folders.branch(job_id, parse_spec(TINY), start)
    return RunFolder(server.settings.run_folder(job_id))


def test_what_a_killed_server_took_for_a_branch_that_it_did_not_store_is_removed_at_the_next_start(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as first:
        parent = first.submit()["id"]
        put_checkpoint(RunFolder(first.settings.run_folder(parent)), 4)
        stored = first.http.post(f"/v1/jobs/{parent}/clone", json={"from_step": 4}).json()["id"]
        whole, half, begun = (take_for_a_branch(first, parent) for _ in range(3))
        half.store.delete(CheckpointName(4, 0).manifest)
        half.store.delete("run.json")
        begun.put_spec(parse_spec(TINY))  # as where the database is an older copy
        runs = whole.path.parent
    with serving(tmp_path):
        assert {path.name for path in runs.iterdir()} == {parent, stored, begun.path.name}
        assert [len(RunFolder(runs / job).finished()) for job in (parent, stored, begun.path.name)] == [1, 1, 1]


def test_a_run_that_was_begun_without_a_server_in_its_home_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "mine")
    folder.begin()
    folder.lock.release()
    with serving(tmp_path):
        assert folder.manifest().attempt == 1


def test_what_a_job_stores_is_below_the_storage_of_the_server_that_took_it_and_stays_there(
    tmp_path: Path, database: Database
) -> None:
    store, records = Store(database), Records(database)
    first, second = (store.create(parse_spec(TINY))[0] for _ in range(2))
    RunFolders(Settings(tmp_path), store, records).prepare(first)
    with serving_s3() as s3:
        storage = f"{s3.make_bucket()}/runs"
        folders = RunFolders(Settings(tmp_path, storage=storage), store, records)
        for job in (first, second):
            folders.prepare(job)
        here, there = (RunFolder(folders.folder(job.id)) for job in (first, second))
        assert (here.storage, there.storage) == (None, f"{storage}/{second.id}")
        assert here.spec() == there.spec() == parse_spec(TINY)
        assert there.store.list() == ["spec.yaml"]  # the token of control.json stays on this machine
        assert there.control().token != here.control().token
        folders.discard(second.id)
        assert (there.store.list(), there.path.exists()) == ([], False)


def ended_in(storage: str | None, tmp_path: Path, database: Database) -> tuple[RunFolders, RunFolder]:
    """A cancelled job with a checkpoint."""
    store = Store(database)
    folders = RunFolders(Settings(tmp_path, storage=storage), store, Records(database))
    job, _ = store.create(parse_spec(TINY))
    folders.prepare(job)
    run = RunFolder(folders.folder(job.id))
    put_checkpoint(run, 4)
    store.change(job.id, lambda job: job.become(JobStatus.CANCELLED, job.created_at))
    return folders, run


def test_a_job_in_a_bucket_is_deleted_there_too_and_what_is_left_is_removed_at_the_next_start(
    tmp_path: Path, database: Database
) -> None:
    with serving_s3() as s3:
        folders, run = ended_in(f"{s3.make_bucket()}/runs", tmp_path, database)
        s3.refuses = lambda method, _: method in {"POST", "DELETE"}
        with pytest.raises(FilesLeftError, match="is deleted, but not all of its files are: s3://"):
            folders.delete(run.path.name)
        assert Store(database).page() == []
        folders.discard_unstored()
        assert run.store.list(), "the store still refuses"
        s3.refuses = nothing
        folders.discard_unstored()
        assert (run.store.list(), run.path.exists()) == ([], False)


def test_a_job_whose_process_still_works_in_its_folder_is_not_deleted(tmp_path: Path, database: Database) -> None:
    folders, run = ended_in(None, tmp_path, database)
    run.begin()
    with pytest.raises(TransitionError, match=r"is in use by attempt 1 .* once that process has ended"):
        folders.delete(run.path.name)
    run.lock.release()
    folders.delete(run.path.name)
    assert not run.path.exists()


def test_a_job_that_was_to_be_deleted_when_the_server_was_killed_is_still_there(
    tmp_path: Path, database: Database
) -> None:
    folders, run = ended_in(None, tmp_path, database)
    run.mark_deleted()
    folders.discard_unstored()
    assert [name.step for name in run.finished()] == [4]
    folders.delete(run.path.name)
    assert not run.path.exists()
