"""The run folder: what a job reads when it starts, and what it wrote."""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from server.errors import FilesLeftError, RecordError, TransitionError
from server.jobs.job import Job
from server.jobs.verbs import check_may_be_deleted
from server.logs import about
from server.settings import Settings
from workers.contract.push import ControlPlane
from workers.contract.records import Record
from workers.contract.run.branches import branch, find_start, named_run
from workers.contract.run.folder import RunFolder
from workers.contract.run.mending import read_entries, stand_in
from workers.contract.run.storage import storage_of
from workers.contract.spec.job import JobSpec
from workers.contract.spec.start_from import StartFrom
from workers.contract.tls import first_certificate

from .jobs import Store
from .records import Records
from .tokens import digest

_BATCH = 500
log = logging.getLogger(__name__)


class RunFolders:
    """Prepares the folders of jobs under the server's home."""

    def __init__(self, settings: Settings, store: Store, records: Records) -> None:
        self._settings, self._store, self._records = settings, store, records
        certificate = settings.tls_cert
        self._certificate = certificate and first_certificate(certificate.read_text(encoding="ascii"))

    def folder(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self._settings.run_folder(job_id)

    def _run(self, job_id: str) -> RunFolder:
        """Return the run folder of a job, which says from now on where its store is."""
        path = self.folder(job_id)
        run = RunFolder(path, storage_of(path, self._settings.storage))
        run.keep_storage()
        return run

    @property
    def data(self) -> Path:
        """The folder that prepared text is kept in."""
        return self._settings.data

    def prepare(self, job: Job) -> None:
        """Write what the run needs: its specification, and where and with which token to report.

        Repeated at every start of the server, whose address may have changed; a run that goes on keeps its token.
        """
        folder = self._run(job.id)
        folder.put_spec(job.valid_spec)
        token = _token(folder) or secrets.token_urlsafe(32)
        self._store.set_token_digest(job.id, digest(token))
        url = f"{self._settings.url_for_runs}/v1/jobs/{job.id}/events"
        folder.put_control(ControlPlane(url=url, token=token, certificate=self._certificate))

    def branch(self, job_id: str, spec: JobSpec, start: StartFrom) -> None:
        """Give a job that is not stored yet the checkpoint that it goes on from, so that nobody can take it away.

        Raises:
            SpecError: there is no such run or checkpoint, or the specification sets what a branch cannot set.
        """
        branch(self._run(job_id), spec, start, named_run(start, self.folder("")))

    def check_start(self, spec: JobSpec, start: StartFrom) -> None:
        """Check what can be checked of a branch without reading the files of the checkpoint that it goes on from.

        Raises:
            SpecError: there is no such run or checkpoint, or the specification sets what a branch cannot set.
        """
        find_start(spec, start, named_run(start, self.folder("")))

    def delete(self, job_id: str) -> None:
        """Remove a job with its records and its run folder.

        Raises:
            JobNotFoundError: no job has this id.
            TransitionError: something of the job runs, or is to run.
            FilesLeftError: the job is removed, but some of its files are not; the server tries again when it starts.
        """
        run = RunFolder(self.folder(job_id))
        if (holder := run.lock.held_by()) is not None:
            raise TransitionError(f"{run.path} is in use by {holder}: delete job {job_id} once that process has ended")
        check_may_be_deleted(self._store.get(job_id))
        run.mark_deleted()
        self._store.delete(job_id)
        try:
            run.remove()
        except OSError as error:
            raise FilesLeftError(
                f"job {job_id} is deleted, but not all of its files are: {error}. They are removed when the server "
                "starts the next time, if that is possible then"
            ) from error

    def discard(self, job_id: str) -> None:
        """Remove what was prepared for a job that is not stored after all, or was deleted."""
        folder = self.folder(job_id)
        try:
            RunFolder(folder).remove()
        except OSError as error:
            with about(job_id):
                log.warning("%s cannot be removed, which is tried again when the server starts: %s", folder, error)

    def discard_unstored(self) -> None:
        """Remove what earlier servers left: folders of jobs that were deleted, and of branches that were never stored.

        Another folder in which a run was begun stays, even if its job is not known: the database may be an older copy.
        """
        known = self._store.ids()
        for folder in self.folder("").glob("*/"):
            run = RunFolder(folder)
            if folder.name not in known and (run.is_deleted or run.is_only_prepared()):
                of_what = "of a job that was deleted, or of a branch that was never accepted"
                with about(folder.name):
                    log.info("%s is %s: removing it", folder, of_what)
                self.discard(folder.name)

    def read_rest(self, job_id: str) -> None:
        """Store what the run wrote and could not push; an alert takes the place of a record that is refused."""
        for batch in read_events(self.folder(job_id), self._records.acknowledged(job_id)):
            self._ingest(job_id, batch)

    def _ingest(self, job_id: str, batch: list[Record]) -> None:
        replaced = 0
        while True:
            try:
                self._records.ingest(job_id, batch)
            except RecordError as error:
                if error.seq <= replaced:
                    raise
                replaced = error.seq
                batch = [stand_in(r.seq, error.detail) if r.seq == error.seq else r for r in batch]
            else:
                return


def _token(folder: RunFolder) -> str | None:
    try:
        return folder.control().token
    except (FileNotFoundError, ValidationError):
        return None


def read_events(folder: Path, after: int = 0) -> Iterator[list[Record]]:
    """Read the records after number `after` in batches; an alert stands for each that cannot be read."""
    journal, batch = RunFolder(folder).journal, list[Record]()
    if not journal.exists():
        return
    with journal.open("rb") as file:
        for entry in read_entries(file, after):
            batch.append(entry.record)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    yield batch
