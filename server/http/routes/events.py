"""Records: pushed by runs, streamed to whoever watches."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from server.errors import ParameterError, RecordError, ServerError
from server.http.access.lasting import while_let_in
from server.http.bell import Listener
from server.http.bodies import read_body
from server.http.context import NamedJob, Server, ServerParts
from server.http.feed import Waits, event
from workers.contract.fields import MOST
from workers.contract.problems import explain
from workers.contract.push import Push, PushReply

router = APIRouter(prefix="/v1", tags=["events"])

EVENT_STREAM = "text/event-stream"
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {EVENT_STREAM: {}}}}
_PUSH = {"schema": {"$ref": "#/components/schemas/Push"}}
_BODY = {"requestBody": {"required": True, "content": {"application/json": _PUSH}}}
_KEEP_ALIVE_S = 15.0


@router.post("/jobs/{job_id}/events", openapi_extra=_BODY)
async def push(
    job_id: Annotated[str, Path(description="The whole id of the job.")], request: Request, server: ServerParts
) -> PushReply:
    """Store records of a run, which sends its job's token; the reply has the last number stored and a command.

    A push with a record that cannot be stored is refused with 422, and `seq` in the answer is that record's number.
    """
    try:
        body = await read_body(request)
        try:
            pushed = Push.model_validate_json(body)
        except ValidationError as error:
            raise _refusal(body, error) from None
        reply = await run_in_threadpool(server.records.take, job_id, pushed)
    except ServerError as error:
        server.exposition.count_refusal(error.status)
        raise
    if pushed.records:
        server.exposition.count_push(pushed.records[-1].time)
    return reply


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
    request: Request,
    job: NamedJob,
    server: ServerParts,
    last_event_id: Annotated[int, Header(ge=0, le=MOST, description="Number of the last record received.")] = 0,
    after: Annotated[int, Query(ge=0, le=MOST, description="The same, where no header can be set.")] = 0,
) -> StreamingResponse:
    """Stream a job's records from the first, or from the one after `Last-Event-ID` or `after`, and go on live.

    `event` is the record's kind, `id` its number, `data` the record. A `status` event without `id` tells the state
    of the job as the server knows it; one comes when the stream has caught up, and one whenever the state, or what the
    job waits for, changes by itself. When the job is over and everything was sent, or it is deleted, `event: end`
    closes the stream: do not connect again.
    """
    server.bell.check_room()
    return _stream(request, _job_events(server, job.id, max(last_event_id, after)))


@router.get("/events", response_class=StreamingResponse, responses=_STREAM)
async def watch_all(request: Request, server: ServerParts) -> StreamingResponse:
    """Stream every job that changes, as `event: job` without `id`, at most four times a second each.

    One that is deleted is named by `event: deleted`.
    """
    server.bell.check_room()
    return _stream(request, _overview(server))


def _stream(request: Request, events: AsyncGenerator[bytes]) -> StreamingResponse:
    # Cache-Control is set for every answer; this header keeps an nginx in between from holding events back.
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(while_let_in(request, events), media_type=EVENT_STREAM, headers=headers)


async def _job_events(server: Server, job_id: str, sent: int) -> AsyncGenerator[bytes]:
    told, waits = None, Waits()
    with server.bell.listen(job_id) as listener:
        while not server.bell.is_closed:
            listener.take()
            page = await server.feed.page(job_id, sent)
            for piece in page.pieces():
                yield piece
            sent, told = page.last, page.told or told
            if not page.is_all:
                continue
            if page.status is not None and (told, waits) != (page.status, page.waits):
                told, waits = page.status, page.waits
                yield page.status_event
            if page.status is None or page.status.is_terminal:  # it was deleted, or it is over
                yield event("end", {"status": page.status})
                return
            async for comment in _heartbeat(listener):
                yield comment


async def _overview(server: Server) -> AsyncGenerator[bytes]:
    with server.bell.listen() as listener:
        yield KEEPALIVE_COMMENT
        while not server.bell.is_closed:
            async for comment in _heartbeat(listener):
                yield comment
            for job_id in listener.take():
                yield await server.feed.job(job_id)


async def _heartbeat(listener: Listener) -> AsyncIterator[bytes]:
    """Wait for a change; yield a comment after each long silence, so that the stream is not taken for dead."""
    while True:
        try:
            async with asyncio.timeout(_KEEP_ALIVE_S):
                await listener.wait()
        except TimeoutError:
            yield KEEPALIVE_COMMENT
        else:
            return
