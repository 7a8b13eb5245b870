"""How records are pushed to the control plane, and what its reply says."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from .fields import Count
from .records import Record


class Command(StrEnum):
    """What the control plane asks of a running job."""

    NONE = "none"
    CHECKPOINT = "checkpoint"
    MAKE_WAY = "make_way"
    """Save a checkpoint and end this attempt; the next one goes on, on other workers."""
    PAUSE = "pause"
    STOP = "stop"

    @property
    def ends_the_run(self) -> bool:
        """Whether the attempt ends, after a checkpoint."""
        return self in (Command.MAKE_WAY, Command.PAUSE, Command.STOP)


class Push(BaseModel):
    """Body of the ingest route: consecutive records."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)

    records: list[Record]
    attempt: Count | None = None
    """The attempt that pushes; older versions did not say, and it is the newest one that a record names."""


class PushReply(BaseModel):
    """Answer of the ingest route."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    acknowledged: int
    """Every record up to this number is stored; the next push begins after it."""
    command: Command = Command.NONE
    request: int = 0
    """Number of the last checkpoint that was asked for. `command` repeats until that one is reported; the run takes one
    checkpoint for each number."""


class Refusal(BaseModel):
    """Answer of the ingest route where it refuses a push for good."""

    seq: int | None = None
    """Number of the record that is refused; null where the whole push cannot be read."""
    detail: str = ""


class ControlPlane(BaseModel):
    """`control.json` in the run folder: where to push. The server rewrites it whenever it starts."""

    url: str
    """Of the ingest route, e.g. http://127.0.0.1:8000/v1/jobs/JOB/events."""
    token: str
    certificate: str | None = None
    """The server's certificate in PEM, which alone is trusted; null where the server has none, and uses plain HTTP."""
