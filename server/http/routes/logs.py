"""What the processes of a job printed, as text: its end, and on as more is printed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from server.errors import LogNotFoundError
from server.http.access.lasting import while_let_in
from server.http.context import NamedJob, Server, ServerParts
from server.jobs.job import Job
from server.storage.logs import Log
from workers.contract.problems import counted
from workers.contract.run.folder import RunFolder

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

TEXT = "text/plain"
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {TEXT: {"schema": {"type": "string"}}}}}
_LOOK_S = 0.5
_MOST = 2**31 - 1
_WHICH = "Which attempt; without it the newest. 0 is the preparation of the job's text, before the first one."


@router.get("/logs", response_class=StreamingResponse, responses=_TEXT)
async def logs(
    request: Request,
    job: NamedJob,
    server: ServerParts,
    rank: Annotated[
        int | None, Query(ge=0, le=_MOST, description="Which worker; without it the driver, which prints all of them.")
    ] = None,
    attempt: Annotated[int | None, Query(ge=0, le=_MOST, description=_WHICH)] = None,
    lines: Annotated[int, Query(ge=0, le=10_000, description="How many of the last lines, within a megabyte.")] = 200,
    follow: Annotated[bool, Query(description="Go on with what is printed until the process has ended.")] = False,
) -> StreamingResponse:
    """Read what a process of an attempt printed, as far as the server's machine has it. 404 where it has nothing.

    A log keeps the last five to ten megabytes.
    """
    if follow:
        server.bell.check_room()
    which = job.attempt if attempt is None else attempt
    log = await run_in_threadpool(_open, server.folders.folder(job.id), job, which, rank)
    # X-Accel-Buffering keeps an nginx in between from holding text back.
    text = _following(server, job.id, log, lines) if follow else _end(log, lines)
    return StreamingResponse(while_let_in(request, text), media_type=TEXT, headers={"X-Accel-Buffering": "no"})


async def _end(log: Log, lines: int) -> AsyncGenerator[bytes]:
    with log:
        yield await run_in_threadpool(log.tail, lines)


async def _following(server: Server, job_id: str, log: Log, lines: int) -> AsyncGenerator[bytes]:
    with log, server.bell.listen(job_id) as listener:
        yield await run_in_threadpool(log.tail, lines)
        while not server.bell.is_closed and (piece := await run_in_threadpool(log.more)) is not None:
            if piece:
                yield piece
                continue
            listener.take()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await listener.wait()


def _open(path: Path, job: Job, attempt: int, rank: int | None) -> Log:
    file = RunFolder(path).log(attempt, rank)
    try:
        return Log(file)
    except FileNotFoundError:
        raise LogNotFoundError(_why(job, file, attempt, rank)) from None


def _why(job: Job, file: Path, attempt: int, rank: int | None) -> str:
    if not attempt and (job.attempt or job.preparations):
        return (
            f"there is no log of a preparation of the text of job {job.id}: it has not begun to print, or the text was "
            "prepared for another job or by the workers"
        )
    if not job.attempt:
        return f"job {job.id} is {job.status} and was never started, so it has printed nothing: ask once it has started"
    if attempt > job.attempt:
        return f"job {job.id} has had {counted(job.attempt, 'attempt')} so far: ask for one of them"
    if rank is not None and (there := sorted(each.stem for each in file.parent.glob("*.log"))):
        return (
            f"attempt {attempt} of job {job.id} has no log of rank {rank} on the server's machine, which has those of "
            f"{', '.join(there)}. A rank on another node has its log there; what it prints is also in the log of the "
            "driver, which is read without `rank`"
        )
    return (
        f"attempt {attempt} of job {job.id} has no log on the server's machine: it has not begun to print, an older "
        "version ran it, or its run folder is on another machine. Ask again later, or look into Ray's own logs"
    )
