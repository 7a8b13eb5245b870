"""The audit log: who changed what, and whether it was allowed."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime

from sqlalchemy import insert, select

from server.callers import Caller, Role

from .database import Database
from .schema import audit


@dataclass(frozen=True, slots=True)
class Deed:
    """A request that changes something, and how it was answered."""

    seq: int
    """Its number, larger than that of every earlier one."""
    time: datetime
    caller: str
    """The owner of the token; `admin` for the one in admin.token."""
    role: Role
    action: str
    """HTTP method and path."""
    job_id: str | None
    """The job that it is about, or that it created."""
    status: int
    """The HTTP status of the answer."""
    address: str | None
    """From where it was sent, as far as the server knows; null in the entries of older versions."""


_COLUMNS = [audit.c[field.name] for field in fields(Deed)]


class Audit:
    """The log in a database; what is in it stays."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, caller: Caller, action: str, job_id: str | None, status: int, address: str | None) -> None:
        """Write down a deed."""
        what = {"action": action, "job_id": job_id, "status": status, "address": address}
        values = {"time": datetime.now(UTC)} | what
        with self._database.write() as db:
            db.execute(insert(audit).values(caller=caller.name, role=caller.role, **values))

    def page(self, limit: int, before: int | None = None, job_id: str | None = None) -> list[Deed]:
        """Read deeds, the newest first, older than number `before`, of one job or of all."""
        query = select(*_COLUMNS).order_by(audit.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.seq < before)
        if job_id is not None:
            query = query.where(audit.c.job_id == job_id)
        with self._database.read() as db:
            rows = db.execute(query).mappings()
            return [Deed(**dict(row) | {"role": Role(row["role"])}) for row in rows]
