"""Which of the waiting jobs start now, why the others wait, and when the next one may start.

A job that must wait for others to end keeps its place: those behind it start only on what it will not need. What it
will need is counted as if the running jobs ended in the order in which they began, so that no later job can delay it.
Where the cluster then puts workers on several nodes is only assumed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from workers.contract.problems import counted
from workers.planning.size import Resources, shortage, size_that_fits, worker_of

from .job import Job
from .order import Rules
from .resources import Node
from .room import both, less, room
from .status import TextState


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of a waiting job now."""

    job: Job
    workers: int = 0
    """On how many it starts; 0 where it does not."""
    refusal: str = ""
    """Why it can never start; empty where it can."""
    reason: str = ""
    """Why it waits, and for what; empty where it does not."""


def turns(
    line: Sequence[Job],
    active: Sequence[Job],
    nodes: Sequence[Node],
    rules: Rules,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> list[Turn]:
    """Decide for each job in line, in its order, each on the most workers that there is room for.

    One that has trained already, on a node that is gone, waits for a new one, and holds nobody back. Neither does one
    whose text is not prepared; `texts` says of those, by id, what they wait for.
    """
    taken, total = [], [node.total for node in nodes]
    free = spare = room(nodes, active)
    running, first = Counter(job.owner for job in active), None
    # Why jobs that need the same wait; there may be hundreds. Where owners have a limit, that may be the reason.
    known = dict[tuple[Resources, ...], str]()
    for job in line:
        spec, worker = job.valid_spec, worker_of(job.valid_spec)
        needs = tuple(worker * size for size in spec.world_sizes())
        if job.id not in texts and needs in known and rules.jobs_per_owner is None:
            taken.append(Turn(job, reason=known[needs]))
        elif problem := shortage(spec, total):
            refusal = "" if job.attempt else str(problem)
            taken.append(Turn(job, refusal=refusal, reason=f"it waits for more nodes: {problem.problem}"))
        elif job.id in texts:
            taken.append(Turn(job, reason=texts[job.id]))
        elif rules.jobs_per_owner is not None and running[job.owner] >= rules.jobs_per_owner:
            taken.append(Turn(job, reason=_limit(job, running[job.owner])))
        elif size := size_that_fits(spec, spare):
            free, spare = less(free, worker, size), less(spare, worker, size)
            running[job.owner] += 1
            known.clear()
            taken.append(Turn(job, size))
        else:
            taken.append(Turn(job, reason=_want(job, free, first)))
            if first is None:
                first = job
                spare = both(free, _beside(job, active, nodes, [turn for turn in taken if turn.workers]))
            else:
                known[needs] = taken[-1].reason
    return taken


def starts_in_s(line: Sequence[Job], active: Sequence[Job], nodes: Sequence[Node]) -> dict[str, float]:
    """Return in how many seconds each job in line may start, by id, if the running ones keep their pace.

    Those are left out that wait for something of which nobody knows when it ends, such as a job that has not begun.
    """
    estimates: dict[str, float] = {}
    ends = sorted((job for job in active if job.seconds_left is not None), key=lambda job: job.seconds_left or 0.0)
    ended, now_s, placed = 0, 0.0, list[tuple[Resources, int]]()
    for job in line:
        spec = job.valid_spec
        if job.text_state is not TextState.READY or shortage(spec, [node.total for node in nodes]):
            continue
        while (size := size_that_fits(spec, _left(nodes, active, ends[:ended], placed))) is None:
            if ended == len(ends):
                return estimates
            now_s, ended = ends[ended].seconds_left or 0.0, ended + 1
        placed.append((worker_of(spec), size))
        estimates[job.id] = now_s
    return estimates


def _beside(first: Job, active: Sequence[Job], nodes: Sequence[Node], started: Sequence[Turn]) -> list[Resources]:
    """Return what the first job that must wait leaves of each node, when it starts."""
    spec = first.valid_spec
    placed = [(worker_of(turn.job.valid_spec), turn.workers) for turn in started]
    oldest_first = sorted(active, key=lambda job: (job.attempt_at is None, job.attempt_at or job.created_at, job.id))
    for count in range(len(active) + 1):
        left = _left(nodes, active, oldest_first[:count], placed)
        if size_that_fits(spec, left) is not None:
            return less(left, worker_of(spec), min(spec.world_sizes()))
    return [Resources()] * len(nodes)  # it waits for one that starts now


def _left(
    nodes: Sequence[Node], active: Sequence[Job], ended: Sequence[Job], placed: Sequence[tuple[Resources, int]]
) -> list[Resources]:
    left = room(nodes, active, ended)
    for worker, count in placed:
        left = less(left, worker, count)
    return left


def _limit(job: Job, running: int) -> str:
    return f"{job.owner} has {counted(running, 'job')} on the cluster, as many as one owner may have at a time"


def _want(job: Job, free: Sequence[Resources], first: Job | None) -> str:
    spec = job.valid_spec
    fewest, worker = min(spec.world_sizes()), worker_of(spec)
    needs = f"{counted(fewest, 'worker')} of {worker}" + (" each" if fewest > 1 else "")
    if first is not None and size_that_fits(spec, free) is not None:
        return f"{needs} would fit, but what is free is kept for job {first.id}, which stands before it"
    return f"it needs {needs}, and the cluster has {sum(free, Resources())} free"
