"""What is free on the nodes: now, once some jobs have ended, and beside what is put there."""

from collections.abc import Collection, Sequence

from workers.planning.size import Resources, worker_of

from .job import Job
from .resources import Node


def room(nodes: Sequence[Node], active: Sequence[Job], without: Collection[Job] = ()) -> list[Resources]:
    """Return what is free on each node, or would be if the jobs `without` had ended."""
    gone = {job.submission_id for job in without}
    free = [node.free(gone) for node in nodes]
    for job in active:
        if job.submission_id not in gone:
            worker = worker_of(job.valid_spec)
            held = sum((node.held.get(job.submission_id, Resources()) for node in nodes), Resources())
            missing = (job.world_size or max(job.valid_spec.world_sizes())) - held.hold(worker)
            free = less(free, worker, missing)
    return free


def less(free: Sequence[Resources], worker: Resources, workers: int) -> list[Resources]:
    """Return what is left on each node once so many workers, as far as there is room, have been put there.

    Where workers will be that the cluster has not placed yet is only assumed.
    """
    left = []
    for each in free:
        here = min(max(workers, 0), each.hold(worker))
        workers -= here
        left.append(each - worker * here)
    return left


def both(some: Sequence[Resources], others: Sequence[Resources]) -> list[Resources]:
    """Return what is free on each node by both accounts."""
    return [
        Resources(min(one.cpus, other.cpus), min(one.gpus, other.gpus)) for one, other in zip(some, others, strict=True)
    ]
