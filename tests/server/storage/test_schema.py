"""The tables, as the migrations build them."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError

from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.schema import jobs, metadata
from tests.serving import TINY
from workers.contract.documents import parse_spec


def test_the_migrations_build_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    with database.read() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    database.close()


def test_records_need_a_job(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    orphan = text("INSERT INTO records (job_id, seq, kind, time, data) VALUES ('none', 1, 'log', '2026-01-01', '{}')")
    with pytest.raises(IntegrityError), database.write() as db:
        db.execute(orphan)
    database.close()


def test_times_are_stored_in_utc_and_come_back_aware_and_a_naive_one_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    job, _ = Store(database).create(parse_spec(TINY))
    noon_in_paris = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    change = jobs.update().where(jobs.c.id == job.id)
    with database.write() as db:
        db.execute(change.values(started_at=noon_in_paris))
        assert db.execute(text("SELECT started_at FROM jobs")).scalar() == "2026-07-01 10:00:00.000000"
        (started_at,) = db.execute(select(jobs.c.started_at)).one()
        assert (started_at, started_at.tzinfo) == (noon_in_paris, UTC)
        with pytest.raises(StatementError, match="has no time zone"):
            db.execute(change.values(started_at=noon_in_paris.replace(tzinfo=None)))
    database.close()
