"""Sweeps: groups of jobs that were submitted together."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from server.callers import Caller
from server.errors import SweepNotFoundError
from server.http.bodies import read_job_document
from server.http.context import Asking, Server, ServerParts
from server.jobs.job import Job, new_job_id
from server.jobs.status import JobStatus
from server.jobs.sweeps import Sweep, variants
from server.storage.listing import Sort, Wanted

from .submission import KEY, checked, create

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])


class SweepJobs(BaseModel):
    """A sweep with its jobs, in the order of its variants."""

    id: str
    jobs: list[Job]


class SweepSummary(BaseModel):
    """A sweep, and how its jobs fare."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    jobs: int
    """How many there are."""
    statuses: dict[JobStatus, int]
    """How many are in each status."""


class Sweeps(BaseModel):
    """All sweeps, the newest first."""

    sweeps: list[SweepSummary]


_BODY = {
    "requestBody": {
        "required": True,
        "content": {media: {"schema": Sweep.model_json_schema()} for media in ("application/json", "application/yaml")},
    }
}


@router.post("", status_code=201, openapi_extra=_BODY)
async def submit(
    request: Request,
    response: Response,
    server: ServerParts,
    caller: Asking,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=190, description=KEY)] = None,
) -> SweepJobs:
    """Submit a job in many variants: a grid or a list over any of its fields. All are checked before one is stored.

    A repeat with the same Idempotency-Key returns the same jobs, and submits those that a failure has left out.
    """
    document = await read_job_document(request)
    sweep = await run_in_threadpool(_submit, server, caller, document, idempotency_key)
    server.scheduler.wake()
    response.headers["Location"] = f"/v1/sweeps/{sweep.id}"
    return sweep


@router.get("")
def list_sweeps(server: ServerParts) -> Sweeps:
    """List all sweeps that have jobs, the newest first."""
    counts = server.store.sweeps()
    return Sweeps(
        sweeps=[SweepSummary(id=each, jobs=sum(found.values()), statuses=found) for each, found in counts.items()]
    )


@router.get("/{sweep_id}")
def read(
    sweep_id: Annotated[str, Path(max_length=64, description="The id of a sweep.")], server: ServerParts
) -> SweepJobs:
    """Read the jobs of a sweep."""
    jobs = server.store.page(Wanted(sweep=sweep_id), Sort.OLDEST, limit=1000)
    if not jobs:
        raise SweepNotFoundError(f"there is no sweep {sweep_id!r}; GET /v1/sweeps lists the sweeps")
    return SweepJobs(id=sweep_id, jobs=jobs)


def _submit(server: Server, caller: Caller, document: Any, key: str | None) -> SweepJobs:
    documents = variants(document)
    for each in documents:
        checked(server, each)
    jobs, sweep = list[Job](), new_job_id()
    for number, each in enumerate(documents):
        job, _ = create(server, caller, each, f"{key}:{number}" if key else None, sweep=sweep)
        sweep = job.sweep or sweep  # of an earlier request with the same key
        jobs.append(job)
    return SweepJobs(id=sweep, jobs=jobs)
