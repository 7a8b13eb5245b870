"""Units of text over a Ray cluster, by Ray Data. Of this package, only this file imports Ray."""

import logging
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import ray
import ray.data

from workers.contract.sources import CorpusError

from .pool import Work
from .process import answer, outcome_of
from .tasks import Task


def connect(address: str) -> None:
    """Connect this process to the Ray cluster at an address; `auto` finds one on this machine, `local` starts one.

    Raises:
        CorpusError: there is no cluster.
    """
    only_here = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **only_here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CorpusError(f"--ray {address}: no Ray cluster answers ({error}); correct the address") from error


def has_room() -> bool:
    """Tell whether there is a processor that nobody holds in the cluster that this process is connected to."""
    return bool(ray.available_resources().get("CPU", 0) >= 1)


def on_cluster(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
    """Work on units on all processors of the cluster that this process is connected to.

    Yields the number of each unit and its outcome, whichever is done first. Every node must be able to read the files.

    Raises:
        CorpusError: the text cannot be used.
        WorkerError: a process failed.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # the caller tells of the progress
    shared_task, shared_work = ray.put(task), [ray.put(each) for each in work]

    def do(row: dict[str, Any]) -> dict[str, Any]:
        outcome, refusal, trace = answer(_task(shared_task), *ray.get(shared_work[row["item"]]))
        return {"number": row["item"], "outcome": outcome, "refusal": refusal, "trace": trace}

    for row in ray.data.from_items(list(range(len(work))), override_num_blocks=len(work)).map(do).iter_rows():
        number = int(row["number"])
        yield number, outcome_of(work[number][0], row["outcome"], row["refusal"], row["trace"])


@lru_cache(maxsize=1)
def _task(reference: Any) -> Task:
    """Return the task, which builds its tokenizer once in each process; a process has one processor."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    task: Task = ray.get(reference)
    return task
