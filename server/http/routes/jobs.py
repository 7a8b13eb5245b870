"""Jobs: submit, list, read, cancel."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from server.http.bodies import read_job_document
from server.http.context import NamedJob, Server, ServerParts
from server.jobs.job import Job
from server.jobs.status import JobStatus
from workers.contract.documents import parse_spec
from workers.contract.problems import Problem, SpecError
from workers.contract.sources import check_files, warnings
from workers.planning.size import shortage

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_KEY = "A text of your own for this job: a repeated request with it submits nothing again."
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media: {"schema": {"$ref": "#/components/schemas/JobSpec"}}
            for media in ("application/json", "application/yaml")
        },
    }
}


class JobPage(BaseModel):
    """One page of jobs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    jobs: list[Job]
    next_cursor: str | None
    """`cursor` of the next page; null on the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(Job):
    """A job that was accepted, and what may surprise its author."""

    warnings: list[Problem]
    """What may be wrong with the job all the same."""


@router.post("", status_code=201, openapi_extra=_BODY)
async def submit(
    request: Request,
    response: Response,
    server: ServerParts,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200, description=_KEY)] = None,
) -> Submitted:
    """Submit a job: a JobSpec as JSON or YAML. A repeat with the same Idempotency-Key returns the same job and 200.

    A job that needs more than the whole cluster has is refused with 422. While the cluster is not known, it is queued.
    """
    document = await read_job_document(request)
    job, is_new = await run_in_threadpool(_create, server, document, idempotency_key)
    server.scheduler.wake()
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


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


@router.post("/{job_id}/cancel")
async def cancel(job: NamedJob, server: ServerParts) -> Job:
    """Stop a job: at once if it waits, after saving a checkpoint if it runs. Repeating it changes nothing."""
    now = datetime.now(UTC)
    changed = await run_in_threadpool(server.store.change, job.id, lambda job: job.cancel(now))
    server.scheduler.wake()
    return changed


def _create(server: Server, document: Any, key: str | None) -> tuple[Submitted, bool]:
    spec = parse_spec(document)
    check_files(spec.data)
    total = server.scheduler.resources
    if total is not None and (problem := shortage(spec, total.cpus, total.gpus)):
        raise SpecError([problem])
    job, is_new = server.store.create(spec, key)
    if is_new:
        server.folders.prepare(job)
    values = {field.name: getattr(job, field.name) for field in fields(job)}
    return Submitted(**values, warnings=warnings(spec.data, spec.phases)), is_new
