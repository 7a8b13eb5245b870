"""Jobs in the database."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, type_coerce, update

from server.errors import IdempotencyError, JobNotFoundError
from server.jobs.job import Job, new_job_id
from server.jobs.status import JobStatus, TextState
from server.jobs.verbs import check_may_be_deleted
from server.logs import about
from workers.contract.documents import parse_spec
from workers.contract.push import Command
from workers.contract.records import EvaluationRecord
from workers.contract.spec.job import JobSpec
from workers.planning.text import Text

from .database import Database
from .listing import EVERY_JOB, Cursor, Sort, Wanted, sorted_after
from .schema import jobs

# The specification is read as text, so that one that is damaged fails when its own row is read.
_READ_AS = {"spec": type_coerce(jobs.c.spec, sqlalchemy.Text).label("spec")}
_JOB_COLUMNS = [_READ_AS.get(field.name, jobs.c[field.name]) for field in fields(Job)]
log = logging.getLogger(__name__)
_FINISHED = [status.value for status in JobStatus if status.is_terminal]
_ON_CLUSTER = [state.value for state in TextState if state.is_on_cluster]


class Store:
    """The jobs of one server. `on_change` hears the id of every job that changed, after the commit."""

    def __init__(self, database: Database, on_change: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self.on_change = on_change

    def create(
        self,
        spec: JobSpec,
        key: str | None = None,
        *,
        job_id: str | None = None,
        parent: str | None = None,
        owner: str = "admin",
        sweep: str | None = None,
        text: Text | None = None,
    ) -> tuple[Job, bool]:
        """Store a new QUEUED job, or find the one that `key` created before; say whether it is new.

        Args:
            spec: the job.
            key: what a repeated request of the same owner has, too.
            job_id: of the new job, where something was prepared for it.
            parent: what it is a clone of; of a branch, its specification says so.
            owner: who submits it.
            sweep: of which it is part.
            text: what is to be prepared before its workers start; None where nothing is.

        Raises:
            IdempotencyError: the key stands for another specification.
        """
        start = spec.start_from
        with self._database.write() as db:
            if (earlier := _created_by(db, owner, key, spec)) is not None:
                return earlier, False
            job = Job(
                id=job_id or new_job_id(),
                name=spec.name,
                step=0 if start is None else start.step,
                total_steps=spec.total_steps,
                created_at=datetime.now(UTC),
                labels=spec.labels,
                owner=owner,
                sweep=sweep,
                text_state=TextState.READY if text is None else TextState.UNPREPARED,
                text_key=None if text is None else text.key,
                priority=spec.priority,
                parent=parent if start is None else start.run,
                parent_step=None if start is None else start.step,
                spec=spec,
            )
            db.execute(insert(jobs).values(**_columns(job), idempotency_key=_of_owner(owner, key)))
        self.on_change(job.id)
        return job, True

    def created_by(self, owner: str, key: str | None, spec: JobSpec) -> Job | None:
        """Return the job that a request of this owner with this key created before.

        Raises:
            IdempotencyError: the key stands for another specification.
        """
        with self._database.read() as db:
            return _created_by(db, owner, key, spec)

    def get(self, job_id: str) -> Job:
        """Read a job.

        Raises:
            JobNotFoundError: no job has this id.
        """
        with self._database.read() as db:
            return read_job(db, job_id)

    def ids(self) -> set[str]:
        """Read the ids of all jobs."""
        with self._database.read() as db:
            return set(db.execute(select(jobs.c.id)).scalars())

    def page(
        self, wanted: Wanted = EVERY_JOB, sort: Sort = Sort.NEWEST, *, limit: int = 50, after: Cursor | None = None
    ) -> list[Job]:
        """Read the jobs that are wanted, in this order, from behind `after`, where the last page ended."""
        query = sorted_after(select(*_JOB_COLUMNS).where(*wanted.conditions()), sort, after).limit(limit)
        with self._database.read() as db:
            return [_job(row) for row in db.execute(query).mappings()]

    def counts(self) -> Mapping[JobStatus, int]:
        """Count the jobs of each status that any job has."""
        query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
        counts = Counter[JobStatus]()
        with self._database.read() as db:
            for status, number in db.execute(query):
                counts[_status(status)] += number
        return counts

    def sweeps(self) -> Mapping[str, Mapping[JobStatus, int]]:
        """Count the jobs of each sweep by status, the newest sweep first."""
        query = select(jobs.c.sweep, jobs.c.status, func.count()).where(jobs.c.sweep.is_not(None))
        counts: dict[str, Counter[JobStatus]] = {}
        with self._database.read() as db:
            for sweep, status, count in db.execute(
                query.group_by(jobs.c.sweep, jobs.c.status).order_by(jobs.c.sweep.desc(), jobs.c.status)
            ):
                counts.setdefault(sweep, Counter())[_status(status)] += count
        return counts

    def unfinished(self) -> list[Job]:
        """Read the jobs that are not in a terminal state, the oldest first; what cannot be read fails for good."""
        query = select(*_JOB_COLUMNS).where(jobs.c.status.not_in(_FINISHED)).order_by(jobs.c.id)
        with self._database.read() as db:
            found = [_job(row) for row in db.execute(query).mappings()]
        for job in found:
            if job.status.is_terminal:
                self._settle_unreadable(job)
        return [job for job in found if not job.status.is_terminal]

    def preparing(self) -> list[Job]:
        """Read the jobs, of any status, for which a preparation of their text is, or may be, on the cluster."""
        query = select(*_JOB_COLUMNS).where(jobs.c.text_state.in_(_ON_CLUSTER)).order_by(jobs.c.id)
        with self._database.read() as db:
            return [_job(row) for row in db.execute(query).mappings()]

    def has_prepared(self, text: Text) -> bool:
        """Tell whether a job is known for which this very text was prepared."""
        query = select(jobs.c.id).where(jobs.c.text_key == text.key, jobs.c.text_state == TextState.READY.value)
        with self._database.read() as db:
            return db.execute(query.limit(1)).scalar() is not None

    def change(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Replace a job by what `change` makes of it, in one transaction."""
        with self._database.write() as db:
            before = read_job(db, job_id)
            after = change(before)
            replace_job(db, before, after)
        if after != before:
            self.on_change(job_id)
        return after

    def delete(self, job_id: str) -> None:
        """Remove a job with its records.

        Raises:
            JobNotFoundError: no job has this id.
            TransitionError: something of the job runs, or is to run.
        """
        with self._database.write() as db:
            check_may_be_deleted(read_job(db, job_id))
            db.execute(delete(jobs).where(jobs.c.id == job_id))
        self.on_change(job_id)

    def _settle_unreadable(self, job: Job) -> None:
        with about(job.id, job.attempt):
            log.error("%s", job.error)
        with self._database.write() as db:
            db.execute(update(jobs).where(jobs.c.id == job.id).values(**_columns(job)))
        self.on_change(job.id)

    def token_digest(self, job_id: str) -> str | None:
        """Return the SHA-256 of the job's token, None where there is no such job or token."""
        with self._database.read() as db:
            return db.execute(select(jobs.c.token_sha256).where(jobs.c.id == job_id)).scalar()

    def set_token_digest(self, job_id: str, digest: str) -> None:
        """Let the token with this SHA-256, and no other, push records of the job."""
        with self._database.write() as db:
            db.execute(update(jobs).where(jobs.c.id == job_id).values(token_sha256=digest))


def _job(row: RowMapping) -> Job:
    """Make a job from a row. A row that cannot be read gives a failed job, and other jobs are not affected."""
    values = {field.name: row[field.name] for field in fields(Job)}
    try:
        status, command, text_state = JobStatus(row["status"]), Command(row["command"]), TextState(row["text_state"])
        read = {
            "status": status,
            "command": command,
            "text_state": text_state,
            "evaluation": _evaluation(row["evaluation"]),
        }
        return Job(**values | read | {"spec": parse_spec(json.loads(row["spec"]))})
    except ValueError as error:  # of another version, or damaged
        return _unreadable(values, error)


def _status(stored: str) -> JobStatus:
    """Return a stored status; one that cannot be read is a failed job's, as in `_unreadable`."""
    return JobStatus(stored) if stored in set(JobStatus) else JobStatus.FAILED


def _unreadable(values: dict[str, Any], error: ValueError) -> Job:
    reason = f"This version of bigbatch cannot read the stored job: {error} Submit the job again."
    said = f"{values['error']}\n{reason}" if values["error"] else reason
    status = JobStatus(values["status"]) if values["status"] in _FINISHED else JobStatus.FAILED
    finished_at = values["finished_at"] or datetime.now(UTC)
    is_on_cluster = values["text_state"] in _ON_CLUSTER
    settled = {
        "status": status,
        "text_state": TextState.STOPPING if is_on_cluster else TextState.READY,
        "error": said,
        "finished_at": finished_at,
        "command": Command.NONE,
        "spec": None,
    }
    return Job(**values | settled | {"evaluation": None})


def _evaluation(stored: dict[str, Any] | None) -> EvaluationRecord | None:
    return None if stored is None else EvaluationRecord.model_validate(stored)


def _columns(job: Job) -> dict[str, Any]:
    """Return what the row of a job holds. A specification that could not be read stays as it is stored."""
    values = {field.name: getattr(job, field.name) for field in fields(Job)}
    spec = values.pop("spec")
    if job.evaluation is not None:
        values["evaluation"] = job.evaluation.model_dump(mode="json")
    return values if spec is None else values | {"spec": spec.model_dump(mode="json")}


def read_job(db: Connection, job_id: str) -> Job:
    """Read a job within a transaction.

    Raises:
        JobNotFoundError: no job has this id.
    """
    row = db.execute(select(*_JOB_COLUMNS).where(jobs.c.id == job_id)).mappings().one_or_none()
    if row is None:
        raise JobNotFoundError(f"there is no job {job_id!r}; GET /v1/jobs lists the jobs")
    return _job(row)


def _created_by(db: Connection, owner: str, key: str | None, spec: JobSpec) -> Job | None:
    if key is None:
        return None
    query = select(*_JOB_COLUMNS).where(jobs.c.idempotency_key == _of_owner(owner, key))
    row = db.execute(query).mappings().one_or_none()
    if row is None:
        return None
    # As specifications: a field that was added since the first request has its default in both.
    earlier = _job(row)
    if earlier.spec not in (spec, None):  # None: this version cannot read it, as the job itself says
        raise IdempotencyError(f"Idempotency-Key {key!r} created job {earlier.id} from another document")
    return earlier


def _of_owner(owner: str, key: str | None) -> str | None:
    """Return what is stored of a key: owners may choose the same one."""
    return None if key is None else hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


def replace_job(db: Connection, before: Job, after: Job) -> None:
    """Store what differs between two states of a job, within a transaction."""
    old, new = _columns(before), _columns(after)
    changed = {name: value for name, value in new.items() if value != old[name]}
    if changed:
        db.execute(update(jobs).where(jobs.c.id == before.id).values(**changed))
