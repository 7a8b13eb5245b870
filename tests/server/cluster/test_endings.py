"""What Ray 2.60 was seen to answer for submissions that had ended, and what is made of it."""

from typing import Any

import pytest

from server.cluster.endings import LONGEST, ending

LOGS = "last available logs (truncated to 20,000 chars):"


def _failed(error_type: str, message: str, code: int | None = None) -> dict[str, Any]:
    return {"status": "FAILED", "error_type": error_type, "message": message, "driver_exit_code": code}


def _exited(code: int, said: str) -> dict[str, Any]:
    message = f"Job entrypoint command failed with exit code {code}, {LOGS}\n{said}"
    return _failed("JOB_ENTRYPOINT_COMMAND_ERROR", message, code)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_exited(-9, "a line\n"), "its driver was killed by SIGKILL."),
        (_exited(-99, ""), "its driver was killed by signal 99."),
        (
            _exited(1, "\x1b[36m(RayTrainWorker pid=7)\x1b[0m a line\nthe disk is full\n"),
            "its driver ended with exit code 1. It printed last:\n(RayTrainWorker pid=7) a line\nthe disk is full",
        ),
        (
            _failed(
                "JOB_SUPERVISOR_ACTOR_DIED",
                "Job supervisor actor died: The actor died unexpectedly before finishing this task.\n\tclass_name: X\n",
            ),
            "Ray says: Job supervisor actor died: The actor died unexpectedly before finishing this task.",
        ),
        (
            _failed("JOB_ENTRYPOINT_COMMAND_ERROR", "Job entrypoint command failed with exit code 3. No logs.", 3),
            "its driver ended with exit code 3.",
        ),
        ({"status": "STOPPED", "message": "Job was intentionally stopped."}, "it was stopped on the cluster."),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, "its driver ended as if all were done."),
    ],
)
def test_every_end_is_said_in_words(answer: dict[str, Any], words: str) -> None:
    assert ending(answer) == words


RAYS_OWN = (
    "2026-11-27 23:51:41,073\tINFO job_manager.py:581 -- Runtime env is setting up.\n",
    "Running entrypoint for job j-a1: cd /runs/j && exec python -m workers.launch\n",
)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)])
def test_of_a_log_only_what_the_driver_printed_is_told(order: tuple[int, ...]) -> None:
    lines = (*RAYS_OWN, "a line\nno room\n")
    said = ending(_exited(1, "".join(lines[each] for each in order)))
    assert said == "its driver ended with exit code 1. It printed last:\na line\nno room"


def test_of_a_log_without_end_only_the_end_is_told() -> None:
    assert len(ending(_exited(1, "x" * 20_000))) < LONGEST + 100
