"""A server that is killed at a point of the first submission: `python -m tests.system.faults.dying POINT serve …`."""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from server.cluster.ray_jobs import RayJobs
from server.jobs.job import Job
from server.jobs.status import JobStatus
from server.storage.jobs import Store
from workers.contract.run.folder import RunFolder

POINTS: dict[str, tuple[type, str, bool]] = {
    "before its row is stored": (Store, "create", False),
    "once its row is stored": (Store, "create", True),
    "once its specification is written": (RunFolder, "put_spec", True),
    "once its token is stored": (Store, "set_token_digest", True),
    "once its address is written": (RunFolder, "put_control", True),
    "once it is admitted": (Store, "change", True),
    "before Ray is asked": (RayJobs, "submit", False),
    "once Ray has it": (RayJobs, "submit", True),
}
"""What is called at a point, and whether the end comes after it."""


def arrange(point: str) -> None:
    """Have this process die at a point of the first submission that it gets."""
    owner, name, is_after = POINTS[point]
    begun = list[bool]()

    def die(result: Any) -> None:
        is_meant = name != "change" or (isinstance(result, Job) and result.status is JobStatus.STARTING)
        if begun and is_meant:
            os.kill(os.getpid(), signal.SIGKILL)

    _wrap(owner, name, die, is_after=is_after)
    _wrap(Store, "create", lambda _: begun.append(True), is_after=False)


def _wrap(owner: type, name: str, then: Callable[[Any], None], *, is_after: bool) -> None:
    inner = getattr(owner, name)

    @wraps(inner)
    def outer(*args: Any, **named: Any) -> Any:
        if not is_after:
            then(None)
        result = inner(*args, **named)
        if is_after:
            then(result)
        return result

    setattr(owner, name, outer)


if __name__ == "__main__":
    from server.__main__ import main

    arrange(sys.argv.pop(1))
    main()
