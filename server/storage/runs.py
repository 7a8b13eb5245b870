"""The run folder: what a job reads when it starts, and what it wrote."""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from server.jobs.job import Job
from server.settings import Settings
from workers.contract.push import ControlPlane
from workers.contract.records import RECORD, Record
from workers.contract.run_folder import RunFolder

from .jobs import Store

_BATCH = 500


def digest(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class RunFolders:
    """Prepares the folders of jobs under the server's home."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store

    def folder(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self._settings.run_folder(job_id)

    def prepare(self, job: Job) -> None:
        """Write what the run needs: its specification, and where and with which token to report.

        Repeated at every start of the server, whose address may have changed; a run that goes on keeps its token.
        """
        folder = RunFolder(self.folder(job.id))
        folder.put_spec(job.valid_spec)
        token = _token(folder) or secrets.token_urlsafe(32)
        self._store.set_token_digest(job.id, digest(token))
        folder.put_control(ControlPlane(url=f"{self._settings.url}/v1/jobs/{job.id}/events", token=token))


def _token(folder: RunFolder) -> str | None:
    try:
        return folder.control().token
    except (FileNotFoundError, ValidationError):
        return None


def read_events(folder: Path) -> Iterator[list[Record]]:
    """Read `events.jsonl` in batches, up to a line that a killed writer left unfinished."""
    path, batch = RunFolder(folder).journal, list[Record]()
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                batch.append(RECORD.validate_json(line))
            except ValidationError:
                break
            if len(batch) == _BATCH:
                yield batch
                batch = []
    yield batch
