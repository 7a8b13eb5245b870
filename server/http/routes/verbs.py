"""What can be asked of a job that is there."""

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from server.http.context import NamedJob, ServerParts
from server.jobs.job import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.post("/cancel")
async def cancel(job: NamedJob, server: ServerParts) -> Job:
    """Stop a job: at once if it waits, after saving a checkpoint if it runs. Repeating it changes nothing."""
    now = datetime.now(UTC)
    changed = await run_in_threadpool(server.store.change, job.id, lambda job: job.cancel(now))
    server.scheduler.wake()
    return changed
