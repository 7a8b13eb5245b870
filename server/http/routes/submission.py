"""New jobs: submitted, or cloned from others; and the plan of one that is not submitted."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from server.callers import Caller
from server.errors import TransitionError
from server.http.bodies import read_job_document
from server.http.context import Asking, NamedJob, Server, ServerParts
from server.jobs.job import Job, new_job_id
from workers.contract.assignments import set_fields
from workers.contract.documents import parse_spec
from workers.contract.problems import Problem, SpecError, explain
from workers.contract.spec.job import JobSpec
from workers.contract.spec.strict import Positive
from workers.planning.plan import Plan, plan
from workers.planning.size import shortage
from workers.planning.text import Text, prepared, text_of, unseen

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

KEY = "A text of your own for this job: a repeated request with it, by the same owner, submits nothing again."
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media: {"schema": {"$ref": "#/components/schemas/JobSpec"}}
            for media in ("application/json", "application/yaml")
        },
    }
}


_DRY_RUN = "Only check the job and return its plan, with status 200; nothing is submitted."
_PLAN = TypeAdapter(Plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(Job):
    """A job that was accepted, and what may surprise its author."""

    warnings: list[Problem]
    """What may be wrong with the job all the same."""


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Submitted | Plan, "description": "The job of an earlier request with this key, or a plan."}
}


@router.post("", status_code=201, response_model=Submitted, responses=_ANSWERS, openapi_extra=_BODY)
async def submit(
    request: Request,
    response: Response,
    server: ServerParts,
    caller: Asking,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200, description=KEY)] = None,
    dry_run: Annotated[bool, Query(description=_DRY_RUN)] = False,
) -> Submitted | Response:
    """Submit a job: a JobSpec as JSON or YAML. A repeat with the same Idempotency-Key returns the same job and 200.

    A job that needs more than the whole cluster has is refused with 422. While the cluster is not known, it is queued.

    With `dry_run`, a bad job is refused in the same way, but nothing is stored. The answer is a Plan: what the job
    takes on the most workers that it allows. The files of the checkpoint that a branch goes on from are not read.
    """
    document = await read_job_document(request)
    if dry_run:
        made = await run_in_threadpool(_plan, server, document)
        return Response(_PLAN.dump_json(made), media_type="application/json")
    job, is_new = await run_in_threadpool(create, server, caller, document, idempotency_key)
    server.scheduler.wake()
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


class Clone(BaseModel):
    """What a clone has other than its job."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    from_step: Positive | None = None
    """Step of a checkpoint of the job, to branch there; without it, the clone begins as the job began."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Fields of the specification by their names, such as {"phases[1].lr": 3.0e-3}."""


_CLONE = {"requestBody": {"content": {"application/json": {"schema": Clone.model_json_schema()}}}}


@router.post("/{job_id}/clone", status_code=201, openapi_extra=_CLONE)
async def clone(
    job: NamedJob,
    request: Request,
    response: Response,
    server: ServerParts,
    caller: Asking,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200, description=KEY)] = None,
) -> Submitted:
    """Submit a job again with other settings; with `from_step`, it goes on from that checkpoint of the job.

    Weights, moments, counters and the position in the text go on, and only what is set changes. Seed, model, data, and
    sequence length and batch of a phase that has begun cannot be set in a branch. When this is answered, the checkpoint
    is the branch's own: nothing that happens to the job can take it away.
    """
    document = await read_job_document(request)
    clone, is_new = await run_in_threadpool(_clone, server, caller, job, document, idempotency_key)
    server.scheduler.wake()
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/jobs/{clone.id}"
    return clone


def _clone(server: Server, caller: Caller, job: Job, order: Any, key: str | None) -> tuple[Submitted, bool]:
    try:
        body = Clone.model_validate(order)
    except ValidationError as error:
        raise explain(error, Clone) from None
    if job.spec is None:
        raise TransitionError(f"job {job.id} cannot be cloned: {job.error}")
    document = job.spec.model_dump(mode="json")
    if body.from_step is not None:
        document["start_from"] = {"run": job.id, "step": body.from_step}
    return create(server, caller, set_fields(document, body.set), key, parent=job.id)


def _plan(server: Server, document: Any) -> Plan:
    spec, _ = checked(server, document)
    if spec.start_from is not None:
        server.folders.check_start(spec, spec.start_from)
    text = server.reach.within(lambda: prepared(spec.data, server.folders.data), f"the text of {spec.name}")
    return plan(spec, prepared=text)


def checked(server: Server, document: Any) -> tuple[JobSpec, list[Problem]]:
    """Return the job of a document, and what may surprise its author."""
    spec = parse_spec(document)
    surprises = server.reach.check(spec)
    nodes = server.scheduler.nodes
    if nodes is not None and (problem := shortage(spec, [node.total for node in nodes])):
        raise SpecError([problem])
    return spec, surprises


def create(
    server: Server,
    caller: Caller,
    document: Any,
    key: str | None,
    *,
    parent: str | None = None,
    sweep: str | None = None,
) -> tuple[Submitted, bool]:
    """Check and store a job, or find the one of an earlier request with this key; say whether it is new.

    Raises:
        SpecError: the document is no job, or one that cannot be started here.
        IdempotencyError: the key stands for another document.
    """
    spec, surprises = checked(server, document)
    job, is_new = _stored(server, spec, key, _Origin(parent, caller.name, sweep, _to_prepare(server, spec)))
    if is_new:
        server.folders.prepare(job)
    values = {field.name: getattr(job, field.name) for field in fields(job)}
    return Submitted(**values, warnings=surprises), is_new


@dataclass(frozen=True, slots=True)
class _Origin:
    parent: str | None
    owner: str
    sweep: str | None
    text: Text | None


def _stored(server: Server, spec: JobSpec, key: str | None, origin: _Origin) -> tuple[Job, bool]:
    """Store a job, a branch only once it has its checkpoint: what is stored may start at any moment."""
    if spec.start_from is None:
        return server.store.create(
            spec, key, parent=origin.parent, owner=origin.owner, sweep=origin.sweep, text=origin.text
        )
    if (earlier := server.store.created_by(origin.owner, key, spec)) is not None:
        return earlier, False
    job_id, is_stored = new_job_id(), False
    try:
        server.folders.branch(job_id, spec, spec.start_from)
        job, is_stored = server.store.create(
            spec, key, job_id=job_id, owner=origin.owner, sweep=origin.sweep, text=origin.text
        )
    finally:
        if not is_stored:
            server.folders.discard(job_id)
    return job, is_stored


def _to_prepare(server: Server, spec: JobSpec) -> Text | None:
    """Return the text that is to be prepared before the workers of a job start; None where nothing is.

    Only names, sizes and times are looked at, and what was prepared by manifests. Where that deceives, the workers
    prepare the text themselves.
    """
    data, within = spec.data, server.folders.data
    seen = server.reach.within(lambda: (text_of(data), prepared(data, within) is not None), f"the text of {spec.name}")
    text, is_there = seen or (unseen(data), False)
    return None if text.is_small or (is_there and server.store.has_prepared(text)) else text
