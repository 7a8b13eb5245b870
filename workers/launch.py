"""`python -m workers.launch RUN --attempt N --workers W --data DIR`: the driver of one job on a Ray cluster.

Only this file, `rendezvous` and `corpus.work.cluster` import Ray.

Ray starts the workers once, as many as it is told, and never again: the scheduler alone counts attempts. The last
status record of the attempt says what follows:

- FAILED: the run failed by itself and would again (see `_worker`). There is no next attempt.
- INTERRUPTED, `is_loss`: a worker or a node was lost, or a rank raised any other exception, such as a full memory or a
  disk that cannot be read. The next attempt goes on; failures.max_restarts says how often in a row.
- INTERRUPTED, not `is_loss`: a node is taken away, there is room for more workers, or the workers did not get their
  processors. The next attempt goes on.
- none of these, nor another end: the driver, Ray's watcher over it or Ray Train's controller was lost, which counts
  like a lost worker.

`ray.train.report` is never called: it is a barrier over all workers that takes seconds.
"""

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

from .contract.manifests import UnknownFormatError
from .contract.problems import SpecError
from .contract.records import RunStatus, StatusRecord
from .contract.run.folder import RunFolder, RunFolderError, older_half
from .contract.run.lock import LockedError, SupersededError
from .contract.run.remote import StorageError
from .contract.sources import CorpusError
from .contract.spec.job import JobSpec
from .output import keep
from .planning.size import check_size
from .rendezvous import Rendezvous, join
from .training.reporting.reporter import Reporter
from .training.safety.signals import StopRequest

DRAIN_POLL_S = 2.0
"""How often rank 0 asks whether a node of the ranks is being taken away; a notice comes 30 s ahead or more."""


def main(command_line: Sequence[str] | None = None) -> int:
    """Drive the job of a run folder to its end; return the exit code."""
    order = _read_order(command_line)
    folder = RunFolder(order.run)
    try:
        folder.take_over(order.attempt)
        _keep_output(folder, order)
        return _drive(folder, order)
    except LockedError as error:
        sys.stderr.write(f"{order.run} {error}\n")
        return 1
    except (SupersededError, RunFolderError, StorageError, UnknownFormatError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        folder.lock.release()


@dataclass(frozen=True, slots=True)
class Order:
    """What the scheduler has decided."""

    run: Path
    attempt: int
    workers: int
    data: Path
    """The folder that prepared text is kept in."""


def _read_order(command_line: Sequence[str] | None) -> Order:
    parser = argparse.ArgumentParser(prog="python -m workers.launch", description="Drive one attempt of a job on Ray.")
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--attempt", type=int, required=True, help="number of the attempt, from 1")
    parser.add_argument("--workers", type=int, required=True, help="on how many workers")
    parser.add_argument("--data", type=Path, required=True, help="the folder that prepared text is kept in")
    return Order(**vars(parser.parse_args(command_line)))


def _drive(folder: RunFolder, order: Order) -> int:
    try:
        spec = folder.spec()
        check_size(spec, order.workers)
        ray.init(log_to_driver=True)
        return 1 if _fit(spec, folder, order) is RunStatus.FAILED else 0  # the worker has said it
    except TrainingFailedError as failure:
        status, error, is_loss = RunStatus.INTERRUPTED, _failures(failure), _is_loss(failure)
    except (SpecError, CorpusError) as problem:
        status, error, is_loss = RunStatus.FAILED, str(problem), None
    except RayActorError as failure:  # the ranks may live for a moment longer: the journal is still theirs
        sys.stderr.write(f"A process of Ray that this attempt cannot do without was lost. {failure}\n")
        return 1
    reporter = Reporter(folder, order.attempt)
    reporter.emit(StatusRecord(status=status, attempt=order.attempt, error=error, is_loss=is_loss))
    reporter.close()
    return 1


def _keep_output(folder: RunFolder, order: Order, rank: int | None = None) -> None:
    log = folder.log(order.attempt, rank)
    keep(log, older_half(log))


def _fit(spec: JobSpec, folder: RunFolder, order: Order) -> RunStatus:
    parallel = spec.parallel
    trainer = _Trainer(
        _worker,
        train_loop_config={"spec": spec, "order": order, "storage": folder.storage},
        backend_config=Rendezvous(),
        scaling_config=ScalingConfig(
            num_workers=order.workers,
            use_gpu=parallel.gpus_per_worker > 0,
            resources_per_worker={"CPU": parallel.cpus_per_worker, "GPU": parallel.gpus_per_worker},
        ),
        run_config=RunConfig(
            name=f"attempt-{order.attempt}",
            storage_path=str(folder.ray),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(parallel.cpus_per_worker)}},
        ),
    )
    return RunStatus(trainer.fit().return_value)


class _Trainer(DataParallelTrainer):  # type: ignore[misc] # not typed
    """Starts two processes less, each of which would import for seconds while the ranks do.

    One is for datasets of Ray, of which there are none here. The other frees the ranks' processors when the controller
    dies, which Ray Core does, too.
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unused)]


def _worker(config: dict[str, Any]) -> str:
    """Run one rank. What needs torch is imported here, on the worker: the driver needs none of it."""
    import torch.distributed as dist

    from . import ranks
    from .checkpoints.errors import CheckpointError
    from .training import loop
    from .training.safety.signals import of_ray_worker  # not of this module, which travels to the workers as a copy

    spec: JobSpec = config["spec"]
    order: Order = config["order"]
    folder = RunFolder(order.run, config["storage"])  # on another node, the folder may not be there to say it
    rank = ray.train.get_context().get_world_rank()
    _keep_output(folder, order, rank)
    sys.stderr.write(f"rank {rank} of {order.workers} begins: process {os.getpid()} on {socket.gethostname()}\n")
    join(ranks.backend(spec))
    if ranks.world_size() != order.workers:
        raise RuntimeError(f"Ray started {ranks.world_size()} workers instead of {order.workers}")
    reporter = Reporter(folder, order.attempt) if ranks.rank() == 0 else None
    stop, nodes = of_ray_worker, set(ranks.gather(ray.get_runtime_context().get_node_id()))
    if reporter:
        threading.Thread(target=_watch_nodes, args=(nodes, stop), name="drains", daemon=True).start()
    try:
        status = loop.train(spec, folder, order.data, reporter=reporter, attempt=order.attempt, stop=stop)
    except (SpecError, CorpusError, CheckpointError, loop.DivergedError) as error:
        if reporter:
            reporter.emit(StatusRecord(status=RunStatus.FAILED, attempt=order.attempt, error=str(error)))
        return RunStatus.FAILED.value
    else:
        dist.destroy_process_group()  # not after an error: while another rank hangs, this may never return
        return status.value
    finally:
        if reporter:
            reporter.close()


def _watch_nodes(nodes: set[str], stop: StopRequest) -> None:
    """Have all ranks make way, through rank 0, once Ray says that a node of theirs is to be taken away.

    `ray.train.get_preemption_info` would be a barrier over all ranks, and needs one more process.
    """
    from ray._private.state import state

    while not stop.is_asked:
        if nodes & state.get_draining_nodes().keys():
            stop.ask()
        time.sleep(DRAIN_POLL_S)


def _is_loss(failure: TrainingFailedError) -> bool:
    """Tell what was lost from a node that was taken away as announced, and from workers that found no processors."""
    if isinstance(failure, ControllerError):
        return not isinstance(failure.controller_failure, WorkerGroupStartupTimeoutError)
    errors: dict[int, Exception] = getattr(failure, "worker_failures", {})
    return not any(getattr(error, "preempted", False) for error in errors.values())


def _failures(failure: TrainingFailedError) -> str:
    """Say what every failing rank said: one has the cause, the others' collective errors are its echo."""
    ranks: dict[int, Exception] = getattr(failure, "worker_failures", {})
    return "\n".join(f"rank {rank}: {ranks[rank]}" for rank in sorted(ranks)) or str(failure)


if __name__ == "__main__":
    sys.exit(main())
