"""Records: pushed by runs, streamed to whoever watches."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from server.errors import JobNotFoundError, ParameterError, RecordError, ServerError
from server.http.bell import Listener
from server.http.bodies import read_body
from server.http.context import NamedJob, Server, ServerParts
from server.jobs.job import Job
from server.jobs.status import JobStatus
from workers.contract.fields import MOST
from workers.contract.problems import explain
from workers.contract.push import Push, PushReply
from workers.contract.records import RunStatus

router = APIRouter(prefix="/v1", tags=["events"])

EVENT_STREAM = "text/event-stream"
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {EVENT_STREAM: {}}}}
_PUSH = {"schema": {"$ref": "#/components/schemas/Push"}}
_BODY = {"requestBody": {"required": True, "content": {"application/json": _PUSH}}}
_KEEP_ALIVE_S = 15.0
_BATCH = 500
_OVERVIEW_S = 0.25


@router.post("/jobs/{job_id}/events", openapi_extra=_BODY)
async def push(
    job_id: Annotated[str, Path(description="The whole id of the job.")], request: Request, server: ServerParts
) -> PushReply:
    """Store records of a run, which sends its job's token; the reply has the last number stored and a command.

    A push with a record that cannot be stored is refused with 422, and `seq` in the answer is that record's number.
    """
    body = await read_body(request)
    try:
        pushed = Push.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(body, error) from None
    return await run_in_threadpool(server.records.ingest, job_id, pushed.records, pushed.attempt)


def _refusal(body: bytes, error: ValidationError) -> ServerError:
    """Name the first record that cannot be read, so that the run can send something else in its place."""
    problems = explain(error, Push).problems
    with suppress(ValueError, RecursionError):  # the text is not JSON
        match error.errors(include_url=False)[0]["loc"], json.loads(body):
            case ("records", int(index), *_), {"records": list(records)}:
                match records[index]:
                    case {"seq": int(seq)}:
                        return RecordError(seq, problems[0].field, problems[0].problem, problems[0].remedy)
    return ParameterError(f"the records cannot be read: {problems[0]}", problems)


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses=_STREAM)
async def watch(
    job: NamedJob,
    server: ServerParts,
    last_event_id: Annotated[int, Header(ge=0, le=MOST, description="Number of the last record received.")] = 0,
    after: Annotated[int, Query(ge=0, le=MOST, description="The same, where no header can be set.")] = 0,
) -> StreamingResponse:
    """Stream a job's records from the first, or from the one after `Last-Event-ID` or `after`, and go on live.

    `event` is the record's kind, `id` its number, `data` the record. A `status` event without `id` tells the state
    of the job as the server knows it; one comes when the stream has caught up, and one whenever the state changes by
    itself. When the job is over and everything was sent, or it is deleted, `event: end` closes the stream: do not
    connect again.
    """
    return _stream(_job_events(server, job.id, max(last_event_id, after)))


@router.get("/events", response_class=StreamingResponse, responses=_STREAM)
async def watch_all(server: ServerParts) -> StreamingResponse:
    """Stream every job that changes, as `event: job` without `id`, at most four times a second each.

    One that is deleted is named by `event: deleted`.
    """
    return _stream(_overview(server))


def _stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    # Cache-Control is set for every answer; this header keeps an nginx in between from holding events back.
    return StreamingResponse(events, media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


async def _job_events(server: Server, job_id: str, sent: int) -> AsyncIterator[bytes]:
    told: JobStatus | None = None
    with server.bell.listen(job_id) as listener:
        while not server.bell.is_closed:
            listener.take()
            try:
                read = await run_in_threadpool(server.records.read_after, job_id, sent, _BATCH)
            except JobNotFoundError:  # it was deleted
                yield _event("end", {"status": None})
                return
            if read.records:
                yield b"".join(_event(record["kind"], record, record["seq"]) for record in read.records)
                sent = read.records[-1]["seq"]
                told = _last_status(read.records) or told
            if not read.is_all:
                continue
            if told is not read.job.status:
                told = read.job.status
                yield _event("status", _status_of(read.job))
            if told.is_terminal:
                yield _event("end", {"status": told})
                return
            async for comment in _heartbeat(listener):
                yield comment


async def _overview(server: Server) -> AsyncIterator[bytes]:
    with server.bell.listen() as listener:
        yield KEEPALIVE_COMMENT
        while not server.bell.is_closed:
            async for comment in _heartbeat(listener):
                yield comment
            for job_id in listener.take():
                try:
                    job = await run_in_threadpool(server.store.get, job_id)
                except JobNotFoundError:
                    yield _event("deleted", {"id": job_id})
                else:
                    yield _event("job", jsonable_encoder(job))
            await asyncio.sleep(_OVERVIEW_S)


async def _heartbeat(listener: Listener) -> AsyncIterator[bytes]:
    """Wait for a change; yield a comment after each long silence, so that the stream is not taken for dead."""
    while True:
        try:
            await asyncio.wait_for(listener.wait(), _KEEP_ALIVE_S)
        except TimeoutError:
            yield KEEPALIVE_COMMENT
        else:
            return


def _event(name: str, data: dict[str, Any], number: int | None = None) -> bytes:
    text = json.dumps(data, separators=(",", ":"))
    return format_sse_event(data_str=text, event=name, id=None if number is None else str(number))


def _status_of(job: Job) -> dict[str, Any]:
    names = ("status", "attempt", "world_size", "error", "unigram_entropy_nats", "step", "started_at", "finished_at")
    told: dict[str, Any] = jsonable_encoder({name: getattr(job, name) for name in names})
    return {"kind": "status"} | told


def _last_status(records: list[dict[str, Any]]) -> JobStatus | None:
    """Return the last one that is a job's: an attempt that was interrupted, or is to pause, has to end first."""
    statuses = [record["status"] for record in records if record["kind"] == "status"]
    of_jobs = [status for status in statuses if status not in {RunStatus.INTERRUPTED, RunStatus.PAUSED}]
    return JobStatus(of_jobs[-1]) if of_jobs else None
