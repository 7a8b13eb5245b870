"""What a job says of itself, and what it is told in reply: the records of events.jsonl and of the ingest route.

A record is numbered once, when it is written ahead to the run folder. A step that is computed again after a restart is
a new record of the same step and takes the place of the old one.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter


class RunStatus(StrEnum):
    """What a run can say of its own course."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: Annotated[int, Field(ge=1)]
    """Number of the record in its job, from 1, without gaps."""
    time: AwareDatetime


class StatusRecord(_Record):
    """The run began, ended, or failed."""

    kind: Literal["status"] = "status"
    status: RunStatus
    attempt: int
    world_size: int | None = None
    error: str | None = None
    unigram_entropy_nats: float | None = None
    """Loss of the best guess that ignores the context: a model that learns gets below it."""


class TensorsRecord(_Record):
    """Names of the tensors, in the order of every later step's trust ratios."""

    kind: Literal["tensors"] = "tensors"
    names: list[str]
    adapted: list[bool]
    """Whether the tensor's step is scaled by its trust ratio; where not, the ratio is 1."""


class StepRecord(_Record):
    """One optimizer step. A number that is not finite is null."""

    kind: Literal["step"] = "step"
    step: Annotated[int, Field(ge=1)]
    """Optimizer step over all phases, from 1."""
    phase: int
    loss: float | None
    """mlm_loss + nsp_loss, in nats, mean over the global batch."""
    mlm_loss: float | None
    nsp_loss: float | None
    mlm_accuracy: float | None
    lr: float
    grad_norm: float | None
    clip_coef: float | None
    skipped: bool
    """The gradient was not finite on some rank, and no rank changed anything."""
    tokens_per_s: float
    """Non-padding tokens of the global batch by the wall time of the step."""
    step_s: float
    trust_ratio: list[float | None]
    """One ratio a tensor, in the order of the last TensorsRecord."""


class CheckpointRecord(_Record):
    """A checkpoint was committed."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    size_bytes: int
    seconds: float


class AlertRecord(_Record):
    """Something that somebody should look at."""

    kind: Literal["alert"] = "alert"
    level: Literal["info", "warning", "error"]
    title: str
    detail: str = ""


class LogRecord(_Record):
    """A line of text."""

    kind: Literal["log"] = "log"
    text: str


Record = Annotated[
    StatusRecord | TensorsRecord | StepRecord | CheckpointRecord | AlertRecord | LogRecord, Field(discriminator="kind")
]
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
