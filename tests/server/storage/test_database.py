import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from server.errors import DatabaseError
from server.storage import database as module
from server.storage.database import Database

COUNT = text("SELECT count(*) FROM t")
ADD = text("INSERT INTO t VALUES (1)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@contextmanager
def opened(path: Path, wait_s: float = 0.1) -> Iterator[Database]:
    database = Database(path, wait_s)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with opened(path) as database:
        with database.write() as db:
            db.execute(text("CREATE TABLE t (x INTEGER UNIQUE)"))
        yield database


def add(database: Database) -> None:
    with database.write() as db:
        db.execute(ADD)


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM t").fetchone()[0])


def test_readers_see_a_snapshot_while_another_thread_writes(database: Database) -> None:
    with database.read() as reader:
        assert reader.execute(COUNT).scalar() == 0
        add(database)
        assert reader.execute(COUNT).scalar() == 0
    with database.read() as reader:
        assert reader.execute(COUNT).scalar() == 1


def test_a_writer_waits_for_another_process_even_if_it_reads_first(path: Path, database: Database) -> None:
    database.close()
    locks = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN IMMEDIATE'); "
        "db.execute('INSERT INTO t VALUES (5)'); print(flush=True); sys.stdin.read(1); db.execute('COMMIT')"
    )
    with (
        subprocess.Popen([sys.executable, "-c", locks, str(path)], stdin=-1, stdout=-1) as other,
        opened(path, 60) as patient,
    ):
        assert other.stdout is not None
        other.stdout.readline()

        def write() -> None:
            with patient.write() as db:
                db.execute(COUNT)
                db.execute(ADD)

        writer = threading.Thread(target=write)
        writer.start()
        other.communicate(b"x")
        writer.join()
    assert count(path) == 2


def test_many_who_ask_within_a_second_whether_it_can_be_written_cause_one_write(
    path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database.recent_obstacle() is None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(module, "_RECENT_S", 3600.0)
        assert database.recent_obstacle() is None
        monkeypatch.setattr(module, "_RECENT_S", 0.0)
        assert "is locked by another process" in (database.recent_obstacle() or "")
    assert database.recent_obstacle() is None


def test_a_database_that_stays_locked_is_named_with_the_remedy_and_can_be_read_meanwhile(
    path: Path, database: Database
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match=rf"{path} is locked by another process \(.*\): try again") as caught:
            add(database)
        assert caught.value.status == 503
        assert database.obstacle() == caught.value.detail
        with database.read() as reader:
            assert reader.execute(COUNT).scalar() == 0
    assert database.obstacle() is None
    add(database)


def test_writers_of_one_server_do_not_wait_for_each_other_without_end(path: Path, database: Database) -> None:
    refused: list[str] = []

    def try_to_write() -> None:
        try:
            add(database)
        except DatabaseError as error:
            refused.append(error.detail)

    with database.write():
        other = threading.Thread(target=try_to_write)
        other.start()
        other.join()
    assert refused == [f"{path} has been busy for 0.1 s: try again"]


def test_what_a_statement_does_wrong_is_not_blamed_on_the_file(database: Database) -> None:
    add(database)
    with pytest.raises(IntegrityError):
        add(database)
    with pytest.raises(OperationalError, match="no such table"), database.write() as db:
        db.execute(text("INSERT INTO nowhere VALUES (1)"))


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_write_to_a_database_that_was_deleted_is_refused_and_no_new_one_is_made(
    path: Path, database: Database, caplog: pytest.LogCaptureFixture, *, is_replaced: bool
) -> None:
    kept = path.rename(path.with_name("kept.db"))
    if is_replaced:
        path.write_bytes(kept.read_bytes())
    for _ in range(3):
        with pytest.raises(DatabaseError, match="it was deleted or replaced, and nothing is stored any more"):
            add(database)
    assert (database.obstacle() or "nothing") in caplog.text
    assert len(caplog.records) == 1  # it is said once, not at every request
    assert path.exists() == is_replaced
    kept.rename(path)
    add(database)
    assert "the database can be written again" in caplog.text
    assert count(path) == 1


def test_a_write_during_which_the_database_is_deleted_is_not_acknowledged(path: Path, database: Database) -> None:
    def write() -> None:
        with database.write() as db:
            db.execute(ADD)
            path.unlink()

    with pytest.raises(DatabaseError, match="was deleted or replaced"):
        write()


def test_a_reader_that_needs_a_new_connection_makes_no_new_database(path: Path, database: Database) -> None:
    path.unlink()
    with database.read(), pytest.raises(DatabaseError, match="cannot be opened"), database.read():
        pass
    assert not path.exists()


def test_a_full_disk_is_named_and_what_was_begun_is_rolled_back(path: Path, database: Database) -> None:
    with database.write() as db:  # as many pages as there are now are as many as the disk holds
        db.exec_driver_sql("CREATE TABLE big (x TEXT)")
    with database.read() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar()
    database.close()
    with opened(path) as full:

        def write() -> None:
            with full.write() as db:
                db.execute(ADD)
                db.exec_driver_sql("INSERT INTO big VALUES (hex(zeroblob(1000000)))")

        with full.read() as db:
            db.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(DatabaseError, match="its disk is full"):
            write()
    assert count(path) == 0


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(DatabaseError, match=rf"{path} is not a database .*move the file away, or choose"):
        Database(path)
    assert path.read_bytes() == b"garbage" * 1000


def test_a_database_of_a_newer_version_is_named_and_stays_as_it_is(path: Path) -> None:
    Database(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseError, match=r"written by a newer version of bigbatch \(its format is 9999\): install"):
        Database(path)


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(DatabaseError, match="is the database of another program: choose another folder with --home"):
        Database(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


@pytest.mark.parametrize("name", ["a folder?", "100% #1.db"])
def test_any_name_of_a_file_can_be_opened(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / name) as database:
        assert database.obstacle() is None
    assert (tmp_path / name).stat().st_mode & 0o077 == 0  # others may not read it


def test_a_folder_in_the_place_of_the_database_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DatabaseError, match="cannot be opened"):
        Database(path)
