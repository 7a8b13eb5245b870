from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import literal, text, update

from server.errors import IdempotencyError, JobNotFoundError
from server.jobs.job import Job
from server.jobs.status import JobStatus
from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.schema import jobs as JOBS
from tests.serving import TINY, run_records, status, step, tensors
from workers.contract.documents import parse_spec
from workers.contract.push import Command
from workers.contract.records import RECORD, Record

SPEC = parse_spec(TINY)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database = Database(tmp_path / "test.db")
    yield Store(database)
    database.close()


def _records(*documents: dict[str, Any]) -> list[Record]:
    return [RECORD.validate_python(document) for document in documents]


def _stored(store: Store, job: Job) -> list[dict[str, Any]]:
    return store.news(job.id, 0, 10_000).records


def test_a_new_job_is_read_back_as_it_was(store: Store) -> None:
    job, is_new = store.create(SPEC)
    assert is_new
    assert store.get(job.id) == job
    assert (job.status, job.total_steps, job.created_at.utcoffset()) == (JobStatus.QUEUED, 20, timedelta())
    assert job.spec == SPEC


def test_a_key_stands_for_one_job(store: Store) -> None:
    first, _ = store.create(SPEC, "key")
    second, is_new = store.create(SPEC, "key")
    assert (second, is_new) == (first, False)
    with pytest.raises(IdempotencyError, match=first.id):
        store.create(parse_spec(TINY | {"seed": 1}), "key")
    assert len(store.page()) == 1


def test_many_submissions_with_one_key_at_once_make_one_job(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: store.create(SPEC, "key"), range(24)))
    assert len({job.id for job, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1


def test_an_unknown_job_is_not_found(store: Store) -> None:
    with pytest.raises(JobNotFoundError, match="nope"):
        store.get("nope")
    with pytest.raises(JobNotFoundError):
        store.ingest("nope", [])


def test_pages_show_every_job_once_the_newest_first(store: Store) -> None:
    ids = sorted((store.create(SPEC)[0].id for _ in range(5)), reverse=True)
    first = store.page(limit=3)
    assert [job.id for job in [*first, *store.page(limit=3, before=first[-1].id)]] == ids


def test_jobs_are_found_by_status_and_by_label(store: Store) -> None:
    blue = store.create(parse_spec(TINY | {"labels": {"team": "blue", "odd key": "1"}}))[0]
    red = store.create(parse_spec(TINY | {"labels": {"team": "red"}}))[0]
    store.change(red.id, lambda job: job.become(JobStatus.CANCELLED, job.created_at))
    assert [job.id for job in store.page(label="team=blue")] == [blue.id]
    assert {job.id for job in store.page(label="team")} == {blue.id, red.id}
    assert store.page(label="team=green") == []
    assert [job.id for job in store.page(label="odd key=1")] == [blue.id]
    assert [job.id for job in store.page(statuses=[JobStatus.CANCELLED])] == [red.id]
    assert [job.id for job in store.unfinished()] == [blue.id]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=12))
def test_however_pushes_overlap_repeat_and_skip_every_record_is_stored_once(
    store: Store, cuts: list[tuple[int, int]]
) -> None:
    job, _ = store.create(SPEC)
    every = _records(*run_records(9))
    acknowledged = 0
    for start, length in cuts:
        reply = store.ingest(job.id, every[start : start + length])
        reached = min(start + length, len(every))
        assert reply.acknowledged == (max(acknowledged, reached) if start <= acknowledged else acknowledged)
        acknowledged = reply.acknowledged
        assert [record["seq"] for record in _stored(store, job)] == list(range(1, acknowledged + 1))
    assert store.ingest(job.id, every).acknowledged == len(every)
    assert len(_stored(store, job)) == len(every)
    assert store.get(job.id).status is JobStatus.SUCCEEDED


def test_a_gap_stores_nothing_and_tells_where_to_go_on(store: Store) -> None:
    job, _ = store.create(SPEC)
    store.ingest(job.id, _records(status(1, "RUNNING"), tensors(2)))
    assert store.ingest(job.id, _records(step(5, 3))).acknowledged == 2
    assert store.get(job.id).step == 0


def test_a_step_that_was_computed_again_takes_the_place_of_the_first_one(store: Store) -> None:
    job, _ = store.create(SPEC)
    store.ingest(job.id, _records(step(1, 1), step(2, 2), step(3, 1, loss=5.0)))
    assert [(record["seq"], record["step"]) for record in _stored(store, job)] == [(2, 2), (3, 1)]
    assert store.get(job.id).loss == 5.0
    # The number that was taken away is not asked for again.
    assert store.ingest(job.id, _records(step(1, 1))).acknowledged == 3


def test_trust_ratios_come_back_as_they_were_and_missing_ones_as_null(store: Store) -> None:
    job, _ = store.create(SPEC)
    store.ingest(job.id, _records(step(1, 1, ratios=[0.1, None, 1234.5, 1e-9])))
    assert _stored(store, job)[0]["trust_ratio"] == [0.1, None, 1234.5, 1e-9]


def test_records_and_what_they_imply_for_the_job_are_one_transaction(store: Store) -> None:
    job, _ = store.create(SPEC)
    good, bad = _records(step(1, 1), step(2, 2))
    with pytest.raises(TypeError):
        store.ingest(job.id, iter([good, bad.model_copy(update={"trust_ratio": object()})]))
    assert store.get(job.id).step == 0
    assert _stored(store, job) == []
    assert store.ingest(job.id, []).acknowledged == 0


def test_the_reply_carries_the_command_and_a_cancelled_job_stays_told_to_stop(store: Store) -> None:
    job, _ = store.create(SPEC)
    assert store.ingest(job.id, _records(status(1, "RUNNING"))).command is Command.NONE
    store.change(job.id, lambda job: job.cancel(job.created_at))
    assert store.ingest(job.id, []).command is Command.STOP
    assert store.ingest(job.id, _records(status(2, "CANCELLED"))).command is Command.STOP


def test_news_say_when_there_is_more(store: Store) -> None:
    job, _ = store.create(SPEC)
    store.ingest(job.id, _records(*run_records(5)))
    first = store.news(job.id, 0, 3)
    assert ([record["seq"] for record in first.records], first.is_all) == ([1, 2, 3], False)
    assert store.news(job.id, 6, 3).is_all


def test_who_listens_hears_of_changes_and_of_nothing_else(tmp_path: Path) -> None:
    heard: list[str] = []
    database = Database(tmp_path / "test.db")
    store = Store(database, heard.append)
    job, _ = store.create(SPEC, "key")
    store.create(SPEC, "key")
    store.ingest(job.id, _records(step(1, 1)))
    store.ingest(job.id, _records(step(1, 1)))
    store.change(job.id, lambda job: job)
    database.close()
    assert heard == [job.id, job.id]


def test_jobs_outlive_the_server(tmp_path: Path) -> None:
    for _ in range(2):
        database = Database(tmp_path / "test.db")
        Store(database).create(SPEC)
        database.close()
    database = Database(tmp_path / "test.db")
    assert len(Store(database).page()) == 2
    database.close()


@pytest.mark.parametrize("damage", [{"spec": '{"name": "x"}'}, {"spec": "not json"}, {"status": "ASLEEP"}])
def test_a_row_that_cannot_be_read_fails_that_job_alone(tmp_path: Path, damage: dict[str, str]) -> None:
    database, heard = Database(tmp_path / "test.db"), list[str]()
    store, stored_spec = Store(database, heard.append), text("SELECT spec FROM jobs WHERE id = :id")
    damaged, whole = store.create(SPEC)[0], store.create(SPEC)[0]
    with database.write() as db:
        as_text = {name: literal(value) for name, value in damage.items()}
        db.execute(update(JOBS).where(JOBS.c.id == damaged.id).values(as_text))
        before = db.execute(stored_spec, {"id": damaged.id}).scalar()
    heard.clear()
    assert store.unfinished() == [whole]
    assert heard == [damaged.id]
    assert [(job.id, job.status) for job in store.page()] == [
        (whole.id, JobStatus.QUEUED),
        (damaged.id, JobStatus.FAILED),
    ]
    failed = store.get(damaged.id)
    assert "cannot read the stored job" in (failed.error or "")
    assert failed.finished_at is not None
    assert store.page(statuses=[JobStatus.FAILED])[0].id == damaged.id  # and so it is in the database
    assert store.ingest(damaged.id, []).command is Command.STOP
    with database.read() as db:  # what could not be read is kept as it was
        assert db.execute(stored_spec, {"id": damaged.id}).scalar() == before
    database.close()
