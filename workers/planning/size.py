"""The size of an attempt: on how many workers a job runs where there are so many processors."""

from collections.abc import Sequence

from workers.contract.problems import Problem, SpecError, counted
from workers.contract.spec.job import JobSpec


def size_that_fits(spec: JobSpec, cpus: float, gpus: float) -> int | None:
    """Return the most workers that fit, of the numbers that the job allows; None where even the fewest do not."""
    return max((size for size in spec.world_sizes() if _fits(spec, size, cpus, gpus)), default=None)


def shortage(spec: JobSpec, cpus: float, gpus: float) -> Problem | None:
    """Say what a job lacks that can never run on a cluster of this size; None where it fits."""
    if size_that_fits(spec, cpus, gpus) is not None:
        return None
    fewest, each = min(spec.world_sizes()), spec.parallel
    needed = processors(fewest * each.cpus_per_worker, fewest * each.gpus_per_worker)
    problem = f"{counted(fewest, 'worker')} would need {needed}, and the whole cluster has {processors(cpus, gpus)}"
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


def processors(cpus: float, gpus: float) -> str:
    """Write a number of processors as a message shows it: `1 CPU`, `4 CPUs and 1 GPU`."""
    return counted(cpus, "CPU") + (f" and {counted(gpus, 'GPU')}" if gpus else "")


def _fits(spec: JobSpec, size: int, cpus: float, gpus: float) -> bool:
    return size * spec.parallel.cpus_per_worker <= cpus and size * spec.parallel.gpus_per_worker <= gpus


def _written(spec: JobSpec) -> str:
    workers = spec.parallel.workers
    return str(workers if isinstance(workers, int) else workers.model_dump())


def _listed(sizes: Sequence[int]) -> str:
    return " or ".join(map(str, sizes)) if len(sizes) <= 5 else f"{', '.join(map(str, sizes[:5]))} or another divisor"
