"""`python -m workers.launch RUN_DIR --attempt N`: the driver of one job on a Ray cluster. Only this file imports Ray.

Ray starts the worker group and starts it again when a worker dies; the loop finds its newest checkpoint by itself.
`ray.train.report` is never called: it is a barrier over all workers that takes seconds.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from .contract.records import RunStatus, StatusRecord
from .contract.run_folder import RunFolder
from .contract.spec.job import JobSpec
from .training.reporter import Reporter

COLLECTIVE_TIMEOUT_S = 300
"""A rank that hangs in a collective is given up after this."""


def main() -> int:
    """Drive the job of a run folder to its end; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--attempt", type=int, default=1)
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run_dir)
    spec = folder.spec()
    try:
        ray.init(log_to_driver=True)
        outcome, error = _fit(spec, folder, arguments.attempt), None
    except TrainingFailedError as failure:
        outcome, error = RunStatus.FAILED, _failures(failure)
    if outcome is RunStatus.FAILED:
        _say_failed(folder, arguments.attempt, error)
    return 0 if outcome is not RunStatus.FAILED else 1


def _fit(spec: JobSpec, folder: RunFolder, attempt: int) -> RunStatus:
    parallel = spec.parallel
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"run_dir": str(folder.path), "attempt": attempt},
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=_world_size(spec),
            use_gpu=parallel.gpus_per_worker > 0,
            resources_per_worker={"CPU": parallel.cpus_per_worker, "GPU": parallel.gpus_per_worker},
        ),
        run_config=RunConfig(
            name=f"attempt-{attempt}",
            storage_path=str(folder.ray),
            failure_config=FailureConfig(max_failures=spec.failures.max_restarts),
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(parallel.cpus_per_worker)}},
        ),
    )
    return RunStatus(trainer.fit().return_value)


def _worker(config: dict[str, Any]) -> str:
    """Run one rank. Imported on the worker, so the driver need not load torch's distributed parts."""
    from . import ranks
    from .checkpoints.errors import CheckpointError
    from .contract.sources import CorpusError
    from .training import loop

    folder = RunFolder(Path(config["run_dir"]))
    spec = folder.spec()
    reporter = Reporter(folder) if ranks.rank() == 0 else None
    home = folder.path.parent.parent
    try:
        return loop.train(spec, folder, home, reporter=reporter, attempt=config["attempt"]).value
    except (CorpusError, CheckpointError, loop.DivergedError) as error:
        # Ray would start the group again for an exception; these would fail again.
        if reporter:
            reporter.emit(StatusRecord(status=RunStatus.FAILED, attempt=config["attempt"], error=str(error)))
        return RunStatus.FAILED.value
    finally:
        if reporter:
            reporter.close()


def _world_size(spec: JobSpec) -> int:
    """Return the most workers that the cluster holds, of those over which the batch divides."""
    have, each = ray.cluster_resources(), spec.parallel
    fits = [
        size
        for size in spec.world_sizes()
        if size * each.cpus_per_worker <= have.get("CPU", 0) and size * each.gpus_per_worker <= have.get("GPU", 0)
    ]
    return max(fits, default=min(spec.world_sizes()))


def _failures(failure: TrainingFailedError) -> str:
    """Say what every failing rank said: one has the cause, the others' collective errors are its echo."""
    ranks: dict[int, Exception] = getattr(failure, "worker_failures", {})
    return "\n".join(f"rank {rank}: {ranks[rank]}" for rank in sorted(ranks)) or str(failure)


def _say_failed(folder: RunFolder, attempt: int, error: str | None) -> None:
    if error is None:  # the worker said it already
        return
    reporter = Reporter(folder)
    reporter.emit(StatusRecord(status=RunStatus.FAILED, attempt=attempt, error=error))
    reporter.close()


if __name__ == "__main__":
    sys.exit(main())
