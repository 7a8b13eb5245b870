from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from server.storage.database import Database
from server.storage.schema import metadata


def test_the_migrations_build_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    with database.read() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    database.close()


def test_readers_see_a_snapshot_while_another_thread_writes(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    with database.write() as db:
        db.execute(text("CREATE TABLE t (x INTEGER)"))
    count = text("SELECT count(*) FROM t")
    with database.read() as reader:
        assert reader.execute(count).scalar() == 0
        with database.write() as writer:
            writer.execute(text("INSERT INTO t VALUES (1)"))
        assert reader.execute(count).scalar() == 0
    with database.read() as reader:
        assert reader.execute(count).scalar() == 1
    database.close()


def test_records_need_a_job(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    orphan = text("INSERT INTO records (job_id, seq, kind, time, data) VALUES ('none', 1, 'log', '2026-01-01', '{}')")
    with pytest.raises(IntegrityError), database.write() as db:
        db.execute(orphan)
    database.close()
