"""How a submission ended, in words: what Ray says of it is made for programs, or is pages long."""

import re
import signal
from collections.abc import Mapping
from typing import Any

LONGEST = 4000
"""Of what a driver printed last, Ray gives up to 20,000 characters."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAYS_OWN = re.compile(
    r"^(Running entrypoint for job .*|.*\sINFO job_manager\.py:\d+ -- Runtime env is setting up\.)(\n|$)", re.MULTILINE
)
"""Lines that Ray writes into the log of a driver. A driver that ends at once has printed before the first of them."""
_EXIT_CODE = "JOB_ENTRYPOINT_COMMAND_ERROR"


def ending(submission: Mapping[str, Any]) -> str:
    """Return how a submission ended, as the end of a sentence.

    Args:
        submission: what `GET /api/jobs/ID` of Ray answers for one that has ended.
    """
    code, message = submission.get("driver_exit_code"), _COLOUR.sub("", submission.get("message") or "").strip()
    if submission["status"] == "STOPPED":
        return "it was stopped on the cluster."
    if submission["status"] == "SUCCEEDED":
        return "its driver ended as if all were done."
    if submission.get("error_type") == _EXIT_CODE and code is not None:
        return _exit(code, _printed(message.partition("\n")[2]))
    return f"Ray says: {message.partition(chr(10))[0][:LONGEST]}"


def _printed(lines: str) -> str:
    return _RAYS_OWN.sub("", lines).strip()


def _exit(code: int, last_lines: str) -> str:
    """Say with which code a driver ended. One that was killed had no time to say why: what it printed is not told."""
    if code < 0:
        return f"its driver was killed by {_name(-code)}."
    said = f" It printed last:\n{last_lines[-LONGEST:]}" if last_lines else ""
    return f"its driver ended with exit code {code}.{said}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
