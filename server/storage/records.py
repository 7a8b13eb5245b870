"""The records of jobs in the database: taken in order, each once, and read again by streams and pages."""

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from server.errors import RecordError
from server.jobs.job import Job
from workers.contract.push import Command, Push, PushReply
from workers.contract.records import VECTORS, Record, StepRecord, TensorsRecord

from .database import Database
from .jobs import read_job, replace_job
from .ratios import quantiles
from .schema import EVALUATION, jobs, records


@dataclass(frozen=True, slots=True)
class NextRecords:
    """What a stream sends next: the records after a number, and the job as it is after the last of all records."""

    job: Job
    records: list[dict[str, Any]]
    is_all: bool


@dataclass(frozen=True, slots=True)
class Newest:
    """The last records of some kinds, in order; `last_seq` is the number of the last record of all kinds."""

    records: list[dict[str, Any]]
    last_seq: int


class Records:
    """The records of all jobs.

    Attributes:
        on_change: Hears the id of every job that has new ones, after the commit.
        on_push: Hears the id of every job of whose current attempt anything has come, were it no record.
    """

    def __init__(self, database: Database, on_change: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self.on_change = on_change
        self.on_push: Callable[[str], None] = lambda _: None

    def acknowledged(self, job_id: str) -> int:
        """Return the number up to which all records are stored."""
        with self._database.read() as db:
            return _acknowledged(db, job_id)

    def take(self, job_id: str, push: Push) -> PushReply:
        """Store what a run pushes, unless a newer attempt has begun: nothing of it is stored, and it is told to stop.

        A push of an older version, which does not say its attempt, is of the attempt that its records name. Where they
        name none, nothing is stored once there was a second attempt, and the run is left alone: it will send them
        again, with others, and what never comes is read from its journal when the attempt has ended.

        Raises:
            RecordError: a step has not one number for each of its tensors.
        """
        attempt = push.attempt if push.attempt is not None else _named(push.records)
        with self._database.write() as db:
            before = read_job(db, job_id)
            if attempt is not None and attempt < before.attempt:
                return PushReply(acknowledged=_acknowledged(db, job_id), command=Command.STOP)
            is_told = attempt is not None or before.attempt <= 1
            after, is_new, last = self._store(db, before, push.records if is_told else [])
        if attempt is not None:
            self.on_push(job_id)
        if is_new:
            self.on_change(job_id)
        command = Command.STOP if after.status.is_terminal else after.command
        return PushReply(acknowledged=last, command=command, request=after.checkpoint_requests)

    def ingest(self, job_id: str, written: Iterable[Record]) -> int:
        """Store records of a job's journal; return the number up to which all are stored.

        Raises:
            RecordError: a step has not one number for each of its tensors.
        """
        with self._database.write() as db:
            _, is_new, last = self._store(db, read_job(db, job_id), written)
        if is_new:
            self.on_change(job_id)
        return last

    def _store(self, db: Connection, before: Job, records: Iterable[Record]) -> tuple[Job, bool, int]:
        """Store the records that are next in number, and what they imply for the job, in one transaction.

        Records that are stored already are passed over, and so is everything after a gap.

        Returns:
            The job as it is then, whether anything was new, and the number up to which all are stored: it tells the
            sender where to go on.
        """
        after, last, taken = before, _acknowledged(db, before.id), list[tuple[Record, Job]]()
        for record in records:
            if record.seq == last + 1:
                after, last = after.after(record), record.seq
                taken.append((record, after))
        if taken:
            _insert(db, before.id, taken)
            db.execute(update(jobs).where(jobs.c.id == before.id).values(acknowledged=last))
            replace_job(db, before, after)
        return after, bool(taken), last

    def read_after(self, job_id: str, after: int, limit: int, most_bytes: int | None = None) -> NextRecords:
        """Read at most `limit` records after number `after`, and the job, from one snapshot.

        No record is read once those before it have `most_bytes` together. A record is never divided, so one alone may
        have more.
        """
        query = select(records).where(records.c.job_id == job_id, records.c.seq > after)
        found, size, is_all = list[dict[str, Any]](), 0, True
        with self._database.read() as db:
            for row in db.execute(query.order_by(records.c.seq).limit(limit + 1)).mappings():
                if len(found) == limit or (most_bytes is not None and size >= most_bytes):
                    is_all = False
                    break
                found.append(_whole(row))
                size += _size_of(found[-1])
            return NextRecords(read_job(db, job_id), found, is_all)

    def newest(self, job_id: str, kinds: Sequence[str], limit: int) -> Newest:
        """Read the last records of some kinds, and the number of the last record of any kind."""
        query = select(records).where(records.c.job_id == job_id, records.c.kind.in_(kinds))
        with self._database.read() as db:
            last = db.execute(select(func.max(records.c.seq)).where(records.c.job_id == job_id)).scalar() or 0
            found = db.execute(query.order_by(records.c.seq.desc()).limit(limit)).mappings().all()
        return Newest([_whole(row) for row in reversed(found)], last)


def _named(records: Iterable[Record]) -> int | None:
    """Return the newest attempt that records name; None where they name none."""
    return max((attempt for each in records if (attempt := getattr(each, "attempt", None)) is not None), default=None)


def _acknowledged(db: Connection, job_id: str) -> int:
    number: int = db.execute(select(jobs.c.acknowledged).where(jobs.c.id == job_id)).scalar_one()
    return number


def _insert(db: Connection, job_id: str, taken: Sequence[tuple[Record, Job]]) -> None:
    sets = _Sets(db, job_id)
    rows = [{"job_id": job_id} | _row(record, after, sets) for record, after in taken]
    rows = _without_repeated_evaluations(db, job_id, rows)
    # A step that was computed again takes the place of the first one.
    last = {row["step"]: row for row in rows if row["step"] is not None}
    db.execute(delete(records).where(records.c.job_id == job_id, records.c.step.in_(last)))
    db.execute(insert(records), [row for row in rows if row["step"] is None or last[row["step"]] is row])


def _without_repeated_evaluations(db: Connection, job_id: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out, and remove, evaluations of which there is a newer one of the same step."""
    last = {row["data"]["step"]: row["seq"] for row in rows if row["kind"] == EVALUATION}
    if not last:
        return rows
    of_job = (records.c.job_id == job_id) & (records.c.kind == EVALUATION)
    db.execute(delete(records).where(of_job, records.c.data["step"].as_integer().in_(last)))
    return [row for row in rows if row["kind"] != EVALUATION or last[row["data"]["step"]] == row["seq"]]


class _Sets:
    """The sets of tensors of a job, those of the records that are just being stored among them."""

    def __init__(self, db: Connection, job_id: str) -> None:
        self._db, self._job_id = db, job_id
        self._known: dict[str | None, TensorsRecord] = {}

    def add(self, record: TensorsRecord) -> None:
        """Add a set, unless it is there; then it must have the same tensors."""
        known = self._find(record.set)
        if known is not None and (known.names, known.adapted) != (record.names, record.adapted):
            problem = f"{record.set} already names other tensors"
            raise RecordError(record.seq, "set", problem, "give this set another name")
        self._known[record.set] = self._known[None] = record

    def of(self, record: StepRecord) -> TensorsRecord | None:
        """Return the set that a step names, or the last one where it names none, as older ones do.

        None where that record was lost: the step's numbers are stored, but nobody can say whose they are.
        """
        tensors = self._find(record.set)
        try:
            if tensors is not None:
                tensors.check(record)
        except ValueError as error:
            remedy = "send a tensors record whenever the tensors change"
            raise RecordError(record.seq, "trust_ratio", str(error), remedy) from None
        return tensors

    def _find(self, name: str | None) -> TensorsRecord | None:
        if name not in self._known:
            query = select(records.c.data).where(records.c.job_id == self._job_id, records.c.kind == "tensors")
            if name is not None:
                query = query.where(records.c.tensor_set == name)
            found = self._db.execute(query.order_by(records.c.seq.desc()).limit(1)).scalar()
            if found is None:
                return None
            self._known[name] = TensorsRecord.model_validate(found)
        return self._known[name]


def _row(record: Record, after: Job, sets: _Sets) -> dict[str, Any]:
    """Make the row of a record; `after` is the job as it is then. A step also tells what is derived from it here."""
    data = record.model_dump(mode="json", exclude=set(VECTORS))
    row: dict[str, Any] = {"seq": record.seq, "kind": record.kind, "time": record.time, "data": data}
    row |= dict.fromkeys(("step", "tensor_set", *VECTORS))
    if isinstance(record, TensorsRecord):
        sets.add(record)
        row["tensor_set"] = record.set
    elif isinstance(record, StepRecord):
        row |= {"step": record.step} | record.vectors
        data["seconds_left"] = after.seconds_left
        if any(packed is not None for packed in record.vectors.values()):
            tensors = sets.of(record)
            if tensors is not None:
                row["tensor_set"] = data["set"] = tensors.set
                data |= quantiles(record.trust_ratio or b"", tensors.adapted)
    return row


def _size_of(record: dict[str, Any]) -> int:
    """Return about how many bytes a record has: those of its texts, names and vectors, and a few for each number."""
    return sum(_FIELD_BYTES + (len(value) if isinstance(value, str) else len(repr(value))) for value in record.values())


_FIELD_BYTES = 20


def _whole(row: RowMapping) -> dict[str, Any]:
    """Put a stored record together again, as it was sent."""
    data: dict[str, Any] = row["data"]
    if row["kind"] == "step":
        for what in VECTORS:
            data[what] = None if row[what] is None else base64.b64encode(row[what]).decode()
    return data
