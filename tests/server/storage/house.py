"""A job and its records in a database, as tests of the storage use them."""

from pathlib import Path
from typing import Any

from server.jobs.job import Job
from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.records import Records
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.contract.records import RECORD, Record

SPEC = parse_spec(TINY)


class House:
    """One job and its records in a database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path)
        self.store, self.records = Store(self.database), Records(self.database)
        self.job, _ = self.store.create(SPEC)

    def ingest(self, *documents: dict[str, Any]) -> int:
        """Ingest records as they come over the wire; return the number up to which all are stored."""
        return self.records.ingest(self.job.id, read(*documents))

    def now(self) -> Job:
        return self.store.get(self.job.id)

    def stored(self) -> list[dict[str, Any]]:
        return self.records.read_after(self.job.id, 0, 10_000).records


def read(*documents: dict[str, Any]) -> list[Record]:
    return [RECORD.validate_python(document) for document in documents]
