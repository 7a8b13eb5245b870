from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import literal, text, update

from server.errors import IdempotencyError, JobNotFoundError
from server.jobs.preparation import begin
from server.jobs.status import JobStatus, TextState
from server.jobs.verbs import cancel
from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.listing import Cursor, Sort, Wanted
from server.storage.records import Records
from server.storage.schema import jobs as JOBS
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.contract.push import Command, Push
from workers.planning.text import Text

SPEC = parse_spec(TINY)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database = Database(tmp_path / "test.db")
    yield Store(database)
    database.close()


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


def test_owners_may_choose_the_same_key(store: Store) -> None:
    of_ada, _ = store.create(SPEC, "key", owner="ada")
    of_bob, is_new = store.create(parse_spec(TINY | {"seed": 1}), "key", owner="bob")
    assert is_new
    assert [store.create(SPEC, "key", owner="ada")[0].id, store.created_by("ada", "key", SPEC)] == [of_ada.id, of_ada]
    assert of_bob.id != of_ada.id


def test_a_key_stands_for_its_job_also_after_the_specification_has_got_a_new_field(store: Store) -> None:
    """What an older version stored lacks the field; what is sent again has its default."""
    first, _ = store.create(SPEC, "key")
    with store._database.write() as db:
        db.execute(text("UPDATE jobs SET spec = json_remove(spec, '$.execution', '$.optimizer.weight_decay')"))
    assert store.create(SPEC, "key") == (first, False)


def test_many_submissions_with_one_key_at_once_make_one_job(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: store.create(SPEC, "key"), range(24)))
    assert len({job.id for job, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1


def test_an_unknown_job_is_not_found(store: Store) -> None:
    with pytest.raises(JobNotFoundError, match="nope"):
        store.get("nope")


def test_pages_show_every_job_once_the_newest_first(store: Store) -> None:
    ids = sorted((store.create(SPEC)[0].id for _ in range(5)), reverse=True)
    first = store.page(limit=3)
    rest = store.page(limit=3, after=Cursor.after(first[-1], Sort.NEWEST))
    assert [job.id for job in [*first, *rest]] == ids


def test_jobs_are_found_by_status_and_by_label(store: Store) -> None:
    blue = store.create(parse_spec(TINY | {"labels": {"team": "blue", "odd key": "1"}}))[0]
    red = store.create(parse_spec(TINY | {"labels": {"team": "red"}}))[0]
    store.change(red.id, lambda job: job.become(JobStatus.CANCELLED, job.created_at))
    assert [job.id for job in store.page(Wanted(labels=["team=blue"]))] == [blue.id]
    assert {job.id for job in store.page(Wanted(labels=["team"]))} == {blue.id, red.id}
    assert store.page(Wanted(labels=["team=green"])) == []
    assert [job.id for job in store.page(Wanted(labels=["odd key=1"]))] == [blue.id]
    assert [job.id for job in store.page(Wanted(statuses=[JobStatus.CANCELLED]))] == [red.id]
    assert [job.id for job in store.unfinished()] == [blue.id]


def test_who_listens_hears_of_changes_and_of_nothing_else(tmp_path: Path) -> None:
    heard: list[str] = []
    database = Database(tmp_path / "test.db")
    store = Store(database, heard.append)
    job, _ = store.create(SPEC, "key")
    store.create(SPEC, "key")
    store.change(job.id, lambda job: job)
    store.change(job.id, lambda job: job.become(JobStatus.CANCELLED, job.created_at))
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
    assert store.page(Wanted(statuses=[JobStatus.FAILED]))[0].id == damaged.id  # and so it is in the database
    assert Records(store._database).take(damaged.id, Push(records=[])).command is Command.STOP
    with database.read() as db:  # what could not be read is kept as it was
        assert db.execute(stored_spec, {"id": damaged.id}).scalar() == before
    database.close()


def test_jobs_whose_status_cannot_be_read_are_counted_as_failed(store: Store) -> None:
    for job in (store.create(SPEC, sweep="s")[0] for _ in range(3)):
        store.change(job.id, lambda job: job.become(JobStatus.FAILED, datetime.now(UTC), "why"))
    store.create(SPEC, sweep="s")
    with store._database.write() as db:
        db.execute(update(JOBS).where(JOBS.c.id == job.id).values(status=literal("ASLEEP")))
    assert store.counts() == store.sweeps()["s"] == {JobStatus.FAILED: 3, JobStatus.QUEUED: 1}


def test_the_jobs_whose_text_is_prepared_are_known_whatever_their_status(store: Store) -> None:
    much = Text("key", None)
    jobs = [store.create(SPEC, text=much)[0] for _ in range(3)]
    assert [job.text_state for job in jobs] == [TextState.UNPREPARED] * 3
    assert (store.preparing(), store.has_prepared(much)) == ([], False)
    for job in jobs[:2]:
        store.change(job.id, begin)
    cancelled = store.change(jobs[1].id, lambda job: cancel(job, datetime.now(UTC)))
    assert [(job.id, job.text_state) for job in store.preparing()] == [
        (jobs[0].id, TextState.PREPARING),
        (cancelled.id, TextState.STOPPING),
    ]
    store.change(jobs[0].id, lambda job: replace(job, text_state=TextState.READY))
    assert store.has_prepared(much)
    assert not store.has_prepared(Text("other", None))


def test_the_preparation_for_a_job_that_cannot_be_read_is_to_end(store: Store) -> None:
    job = store.change(store.create(SPEC, text=Text("key", None))[0].id, begin)
    with store._database.write() as db:
        db.execute(update(JOBS).where(JOBS.c.id == job.id).values(spec=literal("not json")))
    assert store.unfinished() == []
    assert [(each.status, each.text_state) for each in store.preparing()] == [(JobStatus.FAILED, TextState.STOPPING)]
