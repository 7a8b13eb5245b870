"""One file with what a server knows, to be restored into a home without a database.

It holds the database as it is at one moment, also while a server writes it, the tokens, and of each run all but its
checkpoints and its exported model: those are large, and safe with `--storage` or a copy of the folder `runs`. Journals
are read after the database, so that no record is missing between the two: what a journal has more is read later.
"""

import fcntl
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from server.errors import BackupError
from server.settings import Settings
from workers.contract.files import DRAFT, replacing

from .database import Database

_LARGE = frozenset({"checkpoints", "export"})
_TOKENS = ("admin.token", "ray.token")


def back_up(settings: Settings, target: Path) -> int:
    """Write a backup of a home, which nobody but the user can read; return how many runs are in it.

    Raises:
        BackupError: there is nothing to back up, or the database is damaged.
        OSError: the file cannot be written.
    """
    if not settings.database.is_file():
        raise BackupError(f"there is no database at {settings.database}: name the server's home with --home")
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=DRAFT) as folder:
        snapshot = Path(folder) / settings.database.name
        _copy(settings.database, snapshot)
        with replacing(target) as file, tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(snapshot, settings.database.name)
            for path in _small_files(settings):
                _add(archive, path, settings.home)
    return len(list(settings.run_folder("").glob("*/")))


def restore(source: Path, settings: Settings) -> int:
    """Put a backup into a home that has no database; files that are there already stay. Return how many runs it has.

    Raises:
        BackupError: there is a database already, a server runs on the home, or the file is no backup.
        OSError: a file cannot be read or written.
    """
    for there in sorted(settings.home.glob(f"{settings.database.name}*")):  # SQLite would add what an old log holds
        remedy = "move it away, or choose another folder with --home"
        raise BackupError(f"{there} is there already: {remedy}")
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _without_a_server(settings), tempfile.TemporaryDirectory(dir=settings.home, prefix=DRAFT) as folder:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise BackupError(f"{source} cannot be read ({error}): name a file that `bigbatch backup` wrote") from None
        snapshot = Path(folder) / settings.database.name
        if not snapshot.is_file():
            raise BackupError(f"{source} holds no database: name a file that `bigbatch backup` wrote")
        _check(snapshot, source)
        Database(snapshot).close()  # it is one of this version from now on
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path != snapshot:
                _move(path, settings.home / path.relative_to(folder))
        snapshot.rename(settings.database)  # last: without it there is no home
    return len(list(settings.run_folder("").glob("*/")))


@contextmanager
def _without_a_server(settings: Settings) -> Iterator[None]:
    """Keep servers from the home: one that has lost its database still has the old one open."""
    with settings.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"a server runs on {settings.home}: stop it, and restore then") from None
        yield


def _copy(database: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as origin,
        closing(sqlite3.connect(target)) as copy,
    ):
        origin.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # the copy is one file
    target.chmod(0o600)
    _check(target, database)


def _check(database: Path, source: Path) -> None:
    with closing(sqlite3.connect(database)) as db:
        try:
            found = str(db.execute("PRAGMA quick_check").fetchone()[0])
        except sqlite3.DatabaseError as error:
            found = str(error)
    if found != "ok":
        raise BackupError(f"the database in {source} is damaged ({found}): use another backup")


def _small_files(settings: Settings) -> Iterator[Path]:
    yield from (path for name in _TOKENS if (path := settings.home / name).is_file())
    for run in sorted(settings.run_folder("").glob("*/")):
        for folder, folders, names in os.walk(run):
            if Path(folder) == run:
                folders[:] = [name for name in folders if name not in _LARGE]
            yield from (Path(folder) / name for name in sorted(names) if not name.startswith(DRAFT))


def _add(archive: tarfile.TarFile, path: Path, home: Path) -> None:
    """Add a file with the size that it has when it is opened: a journal may grow meanwhile."""
    try:
        with path.open("rb") as file:
            about = archive.gettarinfo(arcname=str(path.relative_to(home)), fileobj=file)
            if about.isreg():
                archive.addfile(about, file)
    except FileNotFoundError:
        return  # its run removed it meanwhile


def _move(path: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.rename(target)
