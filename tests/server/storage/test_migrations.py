"""Databases of older versions are opened, and what is in them keeps its meaning."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, create_engine, insert, text

from server.storage import database as module
from server.storage.database import Database
from server.storage.histories import Histories
from server.storage.jobs import Store
from server.storage.records import Records
from tests.serving import TINY
from workers.contract.documents import parse_spec

WHEN = datetime(2026, 1, 1)  # noqa: DTZ001 -- as SQLite keeps it


class Older:
    """Writes a database as the first version did."""

    def __init__(self, db: Connection) -> None:
        self._db, self._tables = db, MetaData()
        self._tables.reflect(db)

    def job(self, **fields: Any) -> None:
        defaults = {"created_at": WHEN, "command": "none", "labels": {}, "spec": TINY, "request_sha256": ""}
        self._insert("jobs", defaults | fields)

    def record(self, seq: int, kind: str, step: int | None = None, ratios: bytes | None = None, **data: Any) -> None:
        document = {"seq": seq, "kind": kind, "time": "2026-01-01T00:00:00Z"} | data | ({"step": step} if step else {})
        row = {"job_id": "old", "seq": seq, "kind": kind, "step": step, "time": WHEN, "data": document}
        self._insert("records", row | ({"trust_ratios": ratios} if ratios else {}))

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        self._db.execute(insert(self._tables.tables[table]).values(row))


@contextmanager
def migrating(path: Path, migrate: Callable[[Config, str], None], revision: str) -> Iterator[Connection]:
    """Bring a database to another version, and let the block use it as it is then."""
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as db:
        config.attributes["connection"] = db
        migrate(config, revision)
        yield db
    engine.dispose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of the first version: three tensors, a skipped step, then two tensors, and a row of another length."""
    path = tmp_path / "bigbatch.db"
    with migrating(path, command.upgrade, "0001") as db:
        older = Older(db)
        older.job(id="old", name="old", status="RUNNING", step=5, total_steps=20, attempt=1, acknowledged=7)
        older.record(1, "tensors", names=["a", "b", "c"], adapted=[True, False, True])
        older.record(2, "step", 1, struct.pack("<3f", 0.2, 1.0, 0.4), skipped=False)
        older.record(3, "step", 2, struct.pack("<3f", 1.0, 1.0, 1.0), skipped=True)
        older.record(4, "tensors", names=["c", "a"], adapted=[True, True])
        older.record(5, "step", 3, struct.pack("<2f", 0.25, 0.5), skipped=False)
        older.record(6, "step", 4, struct.pack("<3f", 9.0, 9.0, 9.0), skipped=False)
        older.record(7, "step", 5, struct.pack("<2f", 0.75, float("nan")), skipped=False)
    return path


def test_ratios_of_an_older_version_get_the_names_that_they_had_and_skipped_steps_none(path: Path) -> None:
    database = Database(path)
    matrix = Histories(database).matrix("old", "trust_ratio", start=1, end=None, columns=100)
    records = Records(database).read_after("old", 0, 100).records
    assert Store(database).get("old").step == 5
    database.close()
    assert (matrix.names, matrix.steps, matrix.skipped) == (["a", "b", "c"], [1, 2, 3, 4, 5], [2])
    nan = float("nan")
    expected = [[0.2, nan, 0.5, nan, nan], [1.0, nan, nan, nan, nan], [0.4, nan, 0.25, nan, 0.75]]
    np.testing.assert_allclose(matrix.values, expected, rtol=1e-6)
    assert [record.get("trust_ratio_median") for record in records if record["kind"] == "step"] == pytest.approx(
        [0.3, None, 0.375, None, 0.75]
    )


def test_norms_that_an_older_version_did_not_store_are_missing(path: Path) -> None:
    database = Database(path)
    matrix = Histories(database).matrix("old", "weight_norm", start=1, end=None, columns=100)
    database.close()
    assert matrix.steps == [1, 2, 3, 4, 5]
    assert np.isnan(matrix.values).all()


def test_a_job_that_had_ended_knows_where_its_model_lies(path: Path) -> None:
    with migrating(path, command.upgrade, "0005") as db:
        older = Older(db)
        older.job(id="other", name="other", status="SUCCEEDED", step=5, total_steps=5, attempt=1)
        older.record(8, "status", status="RUNNING", export_path=None)
        older.record(9, "status", status="SUCCEEDED", export_path="/runs/old/export")
    database = Database(path)
    jobs = Store(database)
    assert (jobs.get("old").export_path, jobs.get("other").export_path) == ("/runs/old/export", None)
    database.close()


def test_a_key_from_before_keys_had_owners_still_stands_for_its_job(path: Path) -> None:
    with migrating(path, command.upgrade, "0016") as db:
        of_ada = {"owner": "ada", "idempotency_key": "key", "checkpoint_requests": 0, "restarts": 0, "priority": 0}
        Older(db).job(id="hers", name="tiny", status="QUEUED", step=0, total_steps=20, attempt=0, **of_ada)
    database = Database(path)
    found = Store(database).created_by("ada", "key", parse_spec(TINY))
    database.close()
    assert found is not None
    assert found.id == "hers"


def test_every_migration_can_be_taken_back(path: Path) -> None:
    Database(path).close()
    with migrating(path, command.downgrade, "0001") as db:
        kept = db.execute(text("SELECT trust_ratios FROM records WHERE seq = 2")).scalar()
    assert kept == struct.pack("<3f", 0.2, 1.0, 0.4)


def test_numbers_that_an_older_version_took_though_they_are_not_finite_are_null(path: Path) -> None:
    numbers: dict[str, Any] = {"loss": float("nan"), "lr": float("inf"), "grad_norm": float("-inf"), "step_s": 0.5}
    with migrating(path, command.upgrade, "0005") as db:
        Older(db).record(8, "step", 6, skipped=False, **numbers)
    database = Database(path)
    metrics = Histories(database).metrics("old", ["loss", "lr", "step_s"], start=6, end=None, buckets=10)
    record = Records(database).read_after("old", 7, 100).records[0]
    database.close()
    assert [metrics.last[name].tolist() for name in ("loss", "lr", "step_s")] == [
        [pytest.approx(float("nan"), nan_ok=True)],
        [pytest.approx(float("nan"), nan_ok=True)],
        [0.5],
    ]
    assert [record[name] for name in numbers] == [None, None, None, 0.5]
