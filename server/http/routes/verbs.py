"""What can be asked of a job that is there. Repeating a request changes nothing."""

from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from server.http.context import NamedJob, Server, ServerParts
from server.jobs import verbs
from server.jobs.job import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.post("/pause")
async def pause(job: NamedJob, server: ServerParts) -> Job:
    """Have a job save a checkpoint and give its workers back; it is PAUSED once they have ended.

    One that waits is paused at once. One that has not begun to train has nothing to save and is ended.
    """
    return await _change(server, job, lambda job: verbs.pause(job, _now()))


@router.post("/resume")
async def resume(job: NamedJob, server: ServerParts) -> Job:
    """Have a paused job wait for its next attempt, which goes on from the newest checkpoint."""
    return await _change(server, job, lambda job: verbs.resume(job, _now()))


@router.post("/checkpoint")
async def checkpoint(job: NamedJob, server: ServerParts) -> Job:
    """Have a job that trains save a checkpoint after its present step and go on.

    It is there once `checkpoint_step` names it and `command` is `none` again.
    """
    return await _change(server, job, verbs.checkpoint)


@router.post("/cancel")
async def cancel(job: NamedJob, server: ServerParts) -> Job:
    """Stop a job: at once if it waits, after saving a checkpoint if it runs."""
    return await _change(server, job, lambda job: verbs.cancel(job, _now()))


@router.post("/retry")
async def retry(job: NamedJob, server: ServerParts) -> Job:
    """Have a job that failed or was cancelled wait for its next attempt, under the same id.

    The attempt goes on from the newest checkpoint, and `failures.max_restarts` counts anew.
    """
    if verbs.retry(job, _now()) is not job:  # the server may have another address since the job ended
        await run_in_threadpool(server.folders.prepare, job)
    return await _change(server, job, lambda job: verbs.retry(job, _now()))


async def _change(server: Server, job: Job, change: Callable[[Job], Job]) -> Job:
    changed = await run_in_threadpool(server.store.change, job.id, change)
    server.scheduler.wake()
    return changed


def _now() -> datetime:
    return datetime.now(UTC)
