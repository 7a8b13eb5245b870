"""Jobs: listed, read, amended and deleted."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from server.http.bodies import read_job_document
from server.http.context import NamedJob, ServerParts
from server.jobs import verbs
from server.jobs.job import Job
from server.jobs.status import JobStatus
from server.storage.listing import Cursor, Sort, Wanted
from workers.contract.problems import explain

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_Label = Annotated[str, Field(max_length=200)]


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
        list[_Label] | None, Query(description="Only jobs with this label, `key` or `key=value`; with all of several.")
    ] = None,
    name: Annotated[str | None, Query(max_length=100, description="Only jobs with this text in their names.")] = None,
    owner: Annotated[str | None, Query(max_length=100, description="Only jobs that this owner submitted.")] = None,
    sort: Annotated[Sort, Query(description="By which field, from its first value or, with a minus, its last.")] = (
        Sort.NEWEST
    ),
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs per page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next_cursor` of the page before.")] = None,
) -> JobPage:
    """List the jobs that meet all conditions.

    A page begins behind the last job of the one before, whatever was submitted or deleted meanwhile.
    """
    wanted = Wanted(statuses=status or (), labels=label or (), name=name, owner=owner)
    after = None if cursor is None else Cursor.read(cursor, sort)
    jobs = server.store.page(wanted, sort, limit=limit + 1, after=after)
    more = len(jobs) > limit
    return JobPage(jobs=jobs[:limit], next_cursor=Cursor.after(jobs[limit - 1], sort).text(sort) if more else None)


@router.get("/{job_id}")
def read(job: NamedJob) -> Job:
    """Read a job."""
    return job


class Amendment(BaseModel):
    """What is to change of a job; what is absent stays."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", strict=True)

    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    """Only while the job waits."""
    labels: dict[_Label, Annotated[str, Field(max_length=1000)] | None] = Field(default_factory=dict)
    """Labels to set, or to remove where they are null; the others stay."""


_AMENDMENT = {"requestBody": {"content": {"application/json": {"schema": Amendment.model_json_schema()}}}}


@router.patch("/{job_id}", openapi_extra=_AMENDMENT)
async def amend(job: NamedJob, request: Request, server: ServerParts) -> Job:
    """Change the priority of a job that waits, or the labels of any."""
    document = await read_job_document(request)
    try:
        wanted = Amendment.model_validate(document)
    except ValidationError as error:
        raise explain(error, Amendment) from None
    changed = await run_in_threadpool(
        server.store.change, job.id, lambda job: verbs.amend(job, wanted.priority, wanted.labels)
    )
    server.scheduler.wake()
    return changed


@router.delete("/{job_id}")
def delete(job: NamedJob, server: ServerParts) -> Job:
    """Delete a job that is paused or has ended: its row, its records, and its run folder with all checkpoints.

    The answer is the job as it was. Branches of it have checkpoints of their own, and an export elsewhere stays.
    """
    server.folders.delete(job.id)
    return job
