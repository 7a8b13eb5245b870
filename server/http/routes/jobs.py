"""Jobs: listed, read and deleted."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from server.http.context import NamedJob, ServerParts
from server.jobs.job import Job
from server.jobs.status import JobStatus

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobPage(BaseModel):
    """One page of jobs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    jobs: list[Job]
    next_cursor: str | None
    """`cursor` of the next page; null on the last one."""


@router.get("")
def list_jobs(
    server: ServerParts,
    status: Annotated[list[JobStatus] | None, Query(description="Only jobs of these statuses.")] = None,
    label: Annotated[
        str | None, Query(max_length=200, description="Only jobs with this label, `key` or `key=value`.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs per page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=32, description="`next_cursor` of the page before.")] = None,
) -> JobPage:
    """List jobs, the newest first, of any of the given statuses and with the label `key` or `key=value`."""
    jobs = server.store.page(statuses=status or (), label=label, limit=limit + 1, before=cursor)
    more = len(jobs) > limit
    return JobPage(jobs=jobs[:limit], next_cursor=jobs[limit - 1].id if more else None)


@router.get("/{job_id}")
def read(job: NamedJob) -> Job:
    """Read a job."""
    return job


@router.delete("/{job_id}")
def delete(job: NamedJob, server: ServerParts) -> Job:
    """Delete a job that is paused or has ended: its row, its records, and its run folder with all checkpoints.

    The answer is the job as it was. Branches of it have checkpoints of their own, and an export elsewhere stays.
    """
    server.folders.delete(job.id)
    return job
