"""What SQLite says when it cannot read or write, in words that tell what to do."""

import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

_FAULTS = {
    sqlite3.SQLITE_BUSY: ("is locked by another process", "try again, or end that process"),
    sqlite3.SQLITE_LOCKED: ("is locked by another request", "try again"),
    sqlite3.SQLITE_FULL: ("cannot grow, because its disk is full", "free some space"),
    sqlite3.SQLITE_READONLY: ("cannot be written", "check who may write the file and its folder"),
    sqlite3.SQLITE_PERM: ("may not be read or written by this user", "check who may write the file and its folder"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written, because its disk fails", "check the disk and its free space"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that the file is there, and who may write it and its folder"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "stop the server and restore a backup"),
    sqlite3.SQLITE_NOTADB: ("is not a database", "move the file away, or choose another folder with --home"),
}
_PRIMARY = 0xFF  # the lowest byte of a code of SQLite is its kind


def fault_of(error: DBAPIError, path: Path) -> str | None:
    """Say what keeps SQLite from using the file at `path`; None where the statement is at fault, not the file."""
    code = getattr(error.orig, "sqlite_errorcode", 0)
    if (fault := _FAULTS.get(code & _PRIMARY)) is None:
        return None
    problem, remedy = fault
    return f"{path} {problem} ({error.orig}): {remedy}"
