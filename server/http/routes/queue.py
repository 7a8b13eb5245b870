"""Where a job stands in the queue, and what it waits for."""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from server.http.context import NamedJob, ServerParts
from server.jobs import preparation
from server.jobs.admission import starts_in_s, turns
from server.jobs.order import in_line, priority_now
from server.jobs.status import JobStatus

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


class QueuePlace(BaseModel):
    """The place of a job in the queue. Of a job that does not wait, all is null but the number of those that do."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    waiting: int
    """How many jobs wait."""
    position: int | None = None
    """From 1, the next one to start."""
    priority: float | None = None
    """Its priority, with what its waiting adds to it."""
    reason: str | None = None
    """Why it waits, and for what; null where it starts at the next turn."""
    starts_in_s: float | None = None
    """In how many seconds it may start if the running jobs keep their pace; null where nobody can tell."""


@router.get("/queue")
def queue(job: NamedJob, server: ServerParts) -> QueuePlace:
    """Say where a job stands in the queue, why it waits, and when it may start."""
    now, jobs = datetime.now(UTC), server.store.unfinished()
    active = [each for each in jobs if each.status.is_active]
    line = in_line((each for each in jobs if each.status is JobStatus.QUEUED), server.scheduler.rules, now)
    place = QueuePlace(waiting=len(line))
    ids = [each.id for each in line]
    if job.id not in ids:
        return place
    position, priority = ids.index(job.id) + 1, priority_now(job, server.scheduler.rules, now)
    place = place.model_copy(update={"position": position, "priority": priority})
    nodes = server.scheduler.nodes
    if nodes is None:
        return place.model_copy(update={"reason": server.scheduler.obstacle})
    texts = preparation.reasons(line, server.store.preparing())
    turn = turns(line, active, nodes, server.scheduler.rules, texts)[position - 1]
    estimate = starts_in_s(line, active, nodes).get(job.id)
    return place.model_copy(update={"reason": turn.reason or None, "starts_in_s": estimate})
