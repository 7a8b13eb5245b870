"""The size of an attempt: on how many workers a job runs where the nodes have so many processors."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.contract.problems import Problem, SpecError, counted
from workers.contract.spec.job import JobSpec


@dataclass(frozen=True, slots=True)
class Resources:
    """Numbers of CPUs and GPUs: what a node has, or what a worker needs."""

    cpus: float = 0
    gpus: float = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpus + other.cpus, self.gpus + other.gpus)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cpus - other.cpus, self.gpus - other.gpus)

    def __mul__(self, count: int) -> "Resources":
        return Resources(self.cpus * count, self.gpus * count)

    def hold(self, worker: "Resources") -> int:
        """Return how many workers of this kind fit in here."""
        kinds = ((self.cpus, worker.cpus), (self.gpus, worker.gpus))
        return max(0, min(math.floor(have / need) for have, need in kinds if need))

    def __str__(self) -> str:
        return counted(self.cpus, "CPU") + (f" and {counted(self.gpus, 'GPU')}" if self.gpus else "")


def worker_of(spec: JobSpec) -> Resources:
    """Return what one worker of a job needs, all of it on one node."""
    return Resources(spec.parallel.cpus_per_worker, spec.parallel.gpus_per_worker)


def size_that_fits(spec: JobSpec, nodes: Iterable[Resources]) -> int | None:
    """Return the most workers that fit on nodes with so much room each, of the numbers that the job allows.

    None where even the fewest do not fit. What is left on two nodes is never added up: a worker is on one node.
    """
    places = _places(spec, nodes)
    return max((size for size in spec.world_sizes() if size <= places), default=None)


def shortage(spec: JobSpec, nodes: Sequence[Resources]) -> Problem | None:
    """Say what a job lacks that can never run on a cluster of these nodes; None where it fits."""
    if size_that_fits(spec, nodes) is not None:
        return None
    fewest, worker, total = min(spec.world_sizes()), worker_of(spec), sum(nodes, Resources())
    problem = f"{counted(fewest, 'worker')} would need {worker * fewest}, and the whole cluster has {total}"
    if total.hold(worker) >= fewest:
        largest = max(nodes, key=lambda node: (node.hold(worker), node.cpus, node.gpus))
        problem = (
            f"{counted(fewest, 'worker')} of {worker} each would not fit: there is room for {_places(spec, nodes)}. "
            f"A worker runs on a single node, and the cluster's {total} are spread over {counted(len(nodes), 'node')}, "
            f"the largest of which has {largest}"
        )
    remedy = "lower parallel.workers, parallel.cpus_per_worker or parallel.gpus_per_worker, or add machines"
    return Problem("parallel.workers", _written(spec), problem, remedy)


def check_size(spec: JobSpec, workers: int) -> None:
    """Check that a job may run on exactly this many workers, however they were started.

    Raises:
        SpecError: its batches do not divide over them, or they are not in the range of parallel.workers.
    """
    sizes = spec.world_sizes()
    if workers in sizes:
        return
    problem = f"this job cannot run on {counted(workers, 'worker')}"
    remedy = f"start {_listed(sizes)}, or change parallel.workers or the batch sizes"
    raise SpecError([Problem("parallel.workers", _written(spec), problem, remedy)])


def _places(spec: JobSpec, nodes: Iterable[Resources]) -> int:
    # All workers of a job are alike, so how many fit on one node does not depend on what is put on the others.
    return sum(node.hold(worker_of(spec)) for node in nodes)


def _written(spec: JobSpec) -> str:
    workers = spec.parallel.workers
    return str(workers if isinstance(workers, int) else workers.model_dump())


def _listed(sizes: Sequence[int]) -> str:
    return " or ".join(map(str, sizes)) if len(sizes) <= 5 else f"{', '.join(map(str, sizes[:5]))} or another divisor"
