"""`python -m workers.corpus.work.process FD`: works on units of text that come over a connection until it closes."""

import os
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

from workers.contract.sources import CorpusError
from workers.corpus.reading.units import Unit

from .tasks import Marks, Task


class WorkerError(CorpusError):
    """A process that worked on a unit of text failed or ended; the text may be good."""


def answer(task: Task, unit: Unit, marks: Marks | None) -> tuple[bytes, str, str]:
    """Return the outcome of a unit; or why its text cannot be used; or the traceback of any other error."""
    try:
        return task(unit, marks), "", ""
    except CorpusError as error:
        return b"", str(error), ""
    except Exception:  # noqa: BLE001 -- the caller tells what happened here
        return b"", "", traceback.format_exc()


def outcome_of(unit: Unit, outcome: bytes, refusal: str, trace: str) -> bytes:
    """Return the outcome that another process answered.

    Raises:
        CorpusError: the text cannot be used.
        WorkerError: the process failed.
    """
    if refusal:
        raise CorpusError(refusal)
    if trace:
        raise WorkerError(f"{unit.file}: a process failed:\n{trace}")
    return outcome


def serve(connection: Connection) -> None:
    """Receive a task, then units; send an answer to each.

    Raises:
        EOFError: the other end was closed.
    """
    task: Task = connection.recv()
    while True:
        connection.send(answer(task, *connection.recv()))


def _end_with_the_caller() -> NoReturn:
    """End this process, in the middle of a unit, too, when the caller ends, who holds the other end of its input."""
    os.read(0, 1)  # not sys.stdin, whose lock the interpreter wants when it ends by itself
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    with suppress(EOFError, OSError):  # the caller has ended
        serve(Connection(int(sys.argv[1])))
