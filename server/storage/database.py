"""One SQLite database: how it is opened, migrated, read and written, and what is said when it cannot be."""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, QueuePool, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.errors import DatabaseError

from .faults import fault_of

log = logging.getLogger(__name__)
_RECENT_S = 1.0
_LOG_BYTES = 64 * 2**20  # where readers kept the write-ahead log from being reset, it is cut to this afterwards
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"journal_size_limit={_LOG_BYTES}")


class Database:
    """Many readers, each with a snapshot, and one writer at a time.

    Args:
        path: the file, which is made where it is not there; while it is open, nobody makes it anew.
        wait_s: how long, in seconds, a reader or a writer waits for another process before it gives up.

    Raises:
        DatabaseError: it cannot be opened, or is not one of this version.
    """

    def __init__(self, path: Path, wait_s: float = 5.0) -> None:
        self._path, self._wait_s = path, wait_s
        self._writer = threading.Lock()
        self._obstacle: str | None = None
        self._asking = threading.Lock()
        self._recent: str | None = None
        self._asked_s = -math.inf
        try:
            if not path.exists():
                log.info("there is no database at %s: a new one is made", path)
            path.touch(mode=0o600)  # SQLite would let everybody read it; its other files get the mode of this one
            self._file = _identity(path)
        except OSError as error:
            raise DatabaseError(f"{path} cannot be opened ({error.strerror}): check its folder") from None
        engine = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool)
        # sqlite3 itself would begin a transaction only at the first write, and reads would see no snapshot.
        event.listen(engine, "begin", _begin)
        self._reads = engine.execution_options(begin="BEGIN")
        # A transaction that reads first and writes later cannot wait for another process: its snapshot would be old.
        self._writes = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._migrate()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a snapshot for reading.

        Raises:
            DatabaseError: it cannot be read now.
        """
        with self._told(), self._reads.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction; it is committed at the end and rolled back by an exception.

        Raises:
            DatabaseError: it cannot be written now; the caller must not tell anybody that it was.
        """
        with self._told():
            if not self._writer.acquire(timeout=self._wait_s):
                raise DatabaseError(f"{self._path} has been busy for {self._wait_s:g} s: try again")
            try:
                self._check_is_there()
                with self._writes.begin() as connection:
                    yield connection
                self._check_is_there()
                self._log(None)
            finally:
                self._writer.release()

    def obstacle(self) -> str | None:
        """Try to write, and return why that is not possible; None where it is."""
        try:
            with self.write() as db:
                db.execute(text("UPDATE alembic_version SET version_num = version_num"))
        except DatabaseError as error:
            return error.detail
        return None

    def recent_obstacle(self) -> str | None:
        """Return what `obstacle` says, or said within the last second: those who ask often cause no more writes."""
        with self._asking:
            if time.monotonic() - self._asked_s > _RECENT_S:
                self._recent, self._asked_s = self.obstacle(), time.monotonic()
            return self._recent

    def close(self) -> None:
        """Close every connection."""
        self._reads.dispose()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # SQLite's own default would make a new file
        connection = sqlite3.connect(uri, uri=True, timeout=self._wait_s, check_same_thread=False)
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _check_is_there(self) -> None:
        """Make sure that what is written is found again: a file that was deleted can be written while it is open."""
        if _identity(self._path) != self._file:
            problem = "is not the file that was opened: it was deleted or replaced, and nothing is stored any more"
            raise DatabaseError(f"{self._path} {problem}. Put it back, or stop the server and restore a backup")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite raises into an error with a remedy, and log it where it is a new one."""
        try:
            yield
        except PoolTimeoutError:
            raise DatabaseError("too many requests read the database at the same time: try again") from None
        except DBAPIError as error:
            if (fault := fault_of(error, self._path)) is None:
                raise
            self._log(fault)
            raise DatabaseError(fault) from error
        except DatabaseError as error:
            self._log(error.detail)
            raise

    def _log(self, obstacle: str | None) -> None:
        if obstacle is not None and obstacle != self._obstacle:
            log.error("%s", obstacle)
        elif obstacle is None and self._obstacle is not None:
            log.warning("the database can be written again")
        self._obstacle = obstacle

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.write() as connection:
            self._check_is_ours(connection, ScriptDirectory.from_config(config))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _check_is_ours(self, connection: Connection, scripts: ScriptDirectory) -> None:
        version = MigrationContext.configure(connection).get_current_revision()
        if version is None and inspect(connection).get_table_names():
            raise DatabaseError(f"{self._path} is the database of another program: choose another folder with --home")
        if version is not None and version not in {script.revision for script in scripts.walk_revisions()}:
            problem = f"was written by a newer version of bigbatch (its format is {version})"
            raise DatabaseError(f"{self._path} {problem}: install that version, or choose another folder with --home")


def _begin(connection: Connection) -> None:
    options: Any = connection.get_execution_options()
    connection.exec_driver_sql(options["begin"])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
