"""A pool of processes that work on units of text, one unit at a time each.

The processes are started as programs, not by `multiprocessing`: that would import the caller's main module, with torch,
in each of them, and would leave them behind where the caller is killed. These end with the caller.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing import Pipe
from queue import SimpleQueue

from workers.corpus.reading.units import Unit

from .process import WorkerError, outcome_of
from .tasks import Marks, Task

Work = tuple[Unit, Marks | None]
Spread = Callable[[Task, Sequence[Work]], Iterator[tuple[int, bytes]]]
"""Works on units; yields the number of each and its outcome, in any order."""
SMALL_BYTES = 2**24
"""So much text is done before other processes have started."""


def if_large(spread: Spread) -> Spread:
    """Return what works on little text in this process, and on more by `spread`."""

    def by_size(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
        is_small = sum(unit.size_bytes for unit, _ in work) <= SMALL_BYTES
        return (alone if is_small else spread)(task, work)

    return by_size


def on_all_processors(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
    """Work on units in a process for each processor that this one may use."""
    processors = len(os.sched_getaffinity(0))
    return alone(task, work) if processors == 1 else in_processes(processors, task, work)


def alone(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
    """Work on units in this process, in their order."""
    return ((number, task(*each)) for number, each in enumerate(work))


def in_processes(count: int, task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
    """Work on units in `count` processes; yield the number of each unit and its outcome, whichever is done first.

    Raises:
        CorpusError: the text cannot be used.
        WorkerError: a process failed or ended.
    """
    idle: SimpleQueue[_Process] = SimpleQueue()
    with ExitStack() as stack, ThreadPoolExecutor(count, thread_name_prefix="units") as threads:
        for _ in range(min(count, len(work))):
            process = _Process(task)
            stack.callback(process.end)  # before the threads are joined: they wait for the processes
            idle.put(process)

        def do(number: int) -> tuple[int, bytes]:
            process = idle.get()
            try:
                return number, process.do(*work[number])
            finally:
                idle.put(process)

        waiting: set[Future[tuple[int, bytes]]] = set()
        try:
            for number in range(len(work)):
                waiting.add(threads.submit(do, number))
                if len(waiting) >= 2 * count:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (each.result() for each in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            stack.close()


class _Process:
    """One process that works on a unit at a time."""

    def __init__(self, task: Task) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.corpus.work.process", str(theirs.fileno())],
                env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is for the caller, who ends this one
            )
        self._connection.send(task)

    def do(self, unit: Unit, marks: Marks | None) -> bytes:
        try:
            self._connection.send((unit, marks))
            answer = self._connection.recv()
        except (OSError, EOFError) as error:
            raise WorkerError(
                f"{unit.file}: the process that read it ended with code {self._process.wait()}; if the machine has too "
                "little memory, prepare in fewer processes. What is done is kept"
            ) from error
        return outcome_of(unit, *answer)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._connection.close()
