"""What the streams send: read and encoded once for all streams that are at the same record."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from fastapi.encoders import jsonable_encoder
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from server.errors import JobNotFoundError
from server.jobs.job import Job
from server.jobs.status import JobStatus
from server.storage.jobs import Store
from server.storage.records import Records
from workers.contract.records import RunStatus

_RECORDS, _BYTES = 500, 2**18
_PIECE = 2**14
_PAGES = 64
Made = TypeVar("Made")


class Waits(NamedTuple):
    """What a job waits for, if anything: it can begin and end while the status stays the same."""

    queue_reason: str | None = None
    unreachable_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive records of a job as its streams send them, and how the job is after the last of all records."""

    events: bytes
    last: int
    """Number of the last record in it; where it has none, the number that was asked for."""
    is_all: bool
    told: JobStatus | None
    """What the last record of a status in it says."""
    status: JobStatus | None
    """Of the job; None where it was deleted."""
    waits: Waits
    status_event: bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield the events in pieces, so that a slow reader holds little of them in memory."""
        for begin in range(0, len(self.events), _PIECE):
            yield self.events if len(self.events) <= _PIECE else self.events[begin : begin + _PIECE]


class Feed:
    """Pages of records, and single jobs, kept until the job changes."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store, self._records = store, records
        self._pages = _Shared[tuple[str, int], Page]()
        self._jobs = _Shared[tuple[str, int], bytes]()

    async def page(self, job_id: str, after: int) -> Page:
        """Return the records after a number, at most as many as fit a page."""
        return await self._pages.get((job_id, after), lambda: self._page(job_id, after))

    async def job(self, job_id: str) -> bytes:
        """Return the event that tells a job, or that it was deleted."""
        return await self._jobs.get((job_id, 0), lambda: self._job(job_id))

    def forget(self, job_id: str) -> None:
        """Read a job anew from now on, because it has changed."""
        self._pages.forget(lambda key: key[0] == job_id)
        self._jobs.forget(lambda key: key[0] == job_id)

    def _page(self, job_id: str, after: int) -> Page:
        try:
            read = self._records.read_after(job_id, after, _RECORDS, _BYTES)
        except JobNotFoundError:
            return Page(b"", after, is_all=True, told=None, status=None, waits=Waits(), status_event=b"")
        events = b"".join(event(record["kind"], record, record["seq"]) for record in read.records)
        last = read.records[-1]["seq"] if read.records else after
        status = event("status", _status_of(read.job)) if read.is_all else b""
        waits = Waits(read.job.queue_reason, read.job.unreachable_since)
        return Page(events, last, read.is_all, _last_status(read.records), read.job.status, waits, status)

    def _job(self, job_id: str) -> bytes:
        try:
            return event("job", jsonable_encoder(self._store.get(job_id)))
        except JobNotFoundError:
            return event("deleted", {"id": job_id})


Key = TypeVar("Key")


class _Shared(Generic[Key, Made]):
    """The newest results by their keys, each made by the first who asks, while the others wait for it."""

    def __init__(self) -> None:
        self._tasks = OrderedDict[Key, asyncio.Task[Made]]()

    async def get(self, key: Key, make: Callable[[], Made]) -> Made:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(run_in_threadpool(make))
            if len(self._tasks) > _PAGES:
                self._tasks.popitem(last=False)
        try:
            return await asyncio.shield(task)  # others wait for it, too, when this one's reader has gone
        except BaseException:
            if task.done() and self._tasks.get(key) is task:  # it failed: the next one tries again
                del self._tasks[key]
            raise

    def forget(self, is_meant: Callable[[Key], bool]) -> None:
        for key in [key for key in self._tasks if is_meant(key)]:
            del self._tasks[key]


def event(name: str, data: dict[str, Any], number: int | None = None) -> bytes:
    """Encode a server-sent event."""
    text = json.dumps(data, separators=(",", ":"))
    return format_sse_event(data_str=text, event=name, id=None if number is None else str(number))


def _status_of(job: Job) -> dict[str, Any]:
    names = ("attempt", "world_size", "error", "unigram_entropy_nats", "step", "started_at", "finished_at")
    told: dict[str, Any] = jsonable_encoder({name: getattr(job, name) for name in ("status", *names, *Waits._fields)})
    return {"kind": "status"} | told


def _last_status(records: list[dict[str, Any]]) -> JobStatus | None:
    """Return the last one that is a job's: an attempt that was interrupted, or is to pause, has to end first."""
    statuses = [record["status"] for record in records if record["kind"] == "status"]
    of_jobs = [status for status in statuses if status not in {RunStatus.INTERRUPTED, RunStatus.PAUSED}]
    return JobStatus(of_jobs[-1]) if of_jobs else None
