"""What a job says of itself: the records of events.jsonl and of the ingest route.

A record is built without a number. It gets one, once, when it is written ahead to the run folder. A step that is
computed again after a restart is a new record of the same step and takes the place of the old one.

Records are read for good. A field that is added later is optional, and where it is absent, the record means what the
version that wrote it did.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .fields import FLOAT32_BYTES, Count, Float32s, Text, Time
from .problems import counted, fault


class RunStatus(StrEnum):
    """What a run can say of its own course."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    INTERRUPTED = "INTERRUPTED"
    """The attempt has ended and the run has not: the next attempt goes on."""


def shown(number: float | None, form: str) -> str:
    """Write a number of a record for people; one that was not finite is a dash."""
    return "-" if number is None else format(number, form)


class _Record(BaseModel):
    # Text is not taken for a number or a switch. What a newer worker has added is passed over: without it the record
    # means what it meant before.
    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    seq: Count = 0
    """Number of the record in its job, from 1, without gaps; 0 until the journal gives it one."""
    time: Time = Field(default_factory=lambda: datetime.now(UTC))


class StatusRecord(_Record):
    """The run began, ended, or failed."""

    kind: Literal["status"] = "status"
    status: Annotated[RunStatus, Field(strict=False)]
    attempt: Count
    world_size: Count | None = None
    error: Text | None = None
    is_loss: bool | None = None
    """In an INTERRUPTED record: whether something was lost, which failures.max_restarts allows so many times in a row;
    false where the run was asked to make way and has saved a checkpoint."""
    unigram_entropy_nats: float | None = None
    """Loss of the best guess that ignores the context: a model that learns gets below it."""
    versions: dict[str, str] | None = None
    """Of bigbatch, python, torch, cuda, driver, nccl and ray, as far as the attempt uses them. This and the next two
    stand in an attempt's RUNNING record, and are absent in older ones."""
    hosts: list[str] | None = None
    devices: dict[str, Count] | None = None
    """How many workers compute on a device of this name."""
    zero_stage: Count | None = None
    """How the attempt shards the model, in its RUNNING record; absent in older ones."""
    export_path: Text | None = None
    """The folder with the finished model, in a SUCCEEDED record; null where none was made, absent in older records."""


def tensor_set(names: Sequence[str], adapted: Sequence[bool]) -> str:
    """Return the name of a set of tensors: the same tensors in the same order have the same one in every attempt."""
    content = json.dumps([list(names), list(adapted)], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class TensorsRecord(_Record):
    """Names of the tensors of the steps that name this set, in the order of their numbers."""

    kind: Literal["tensors"] = "tensors"
    names: list[str]
    adapted: list[bool]
    """Whether the tensor's step is scaled by its trust ratio; where not, the ratio is 1."""
    set: str = Field(
        default_factory=lambda data: tensor_set(data["names"], data["adapted"]), min_length=1, max_length=64
    )
    """Absent in older records, whose steps follow the last tensors record before them."""

    @model_validator(mode="after")
    def _one_flag_a_name(self) -> Self:
        if len(self.adapted) != len(self.names):
            problem = f"has {counted(len(self.names), 'name')}, but {counted(len(self.adapted), 'flag')} in `adapted`"
            raise fault(problem, "send one flag for each name")
        if len(set(self.names)) != len(self.names):
            raise fault("has a name twice", "give every tensor its own name")
        return self

    def check(self, step: "StepRecord") -> None:
        """Make sure that `step` has one number for each of these names.

        Raises:
            ValueError: it has more or fewer.
        """
        for what, packed in step.vectors.items():
            if packed is not None and len(packed) != FLOAT32_BYTES * len(self.names):
                raise ValueError(
                    f"{what} of step {step.step} has {counted(len(packed) // FLOAT32_BYTES, 'number')}, but the set "
                    f"{self.set} has {counted(len(self.names), 'tensor')}"
                )


VECTORS = ("trust_ratio", "weight_norm", "update_norm")
"""The fields of a step that hold one number per tensor."""


class StepRecord(_Record):
    """One optimizer step over the global batch. A number that is not finite is null, and so is what nobody measured."""

    kind: Literal["step"] = "step"
    step: Annotated[Count, Field(ge=1)]
    """Optimizer step over all phases, from 1."""
    attempt: Count | None = None
    phase: Count
    loss: float | None
    """mlm_loss + nsp_loss, in nats, mean over the global batch; mlm_loss alone where samples have one segment."""
    mlm_loss: float | None
    nsp_loss: float | None
    mlm_accuracy: float | None
    lr: float
    grad_norm: float | None
    clip_coef: float | None
    skipped: bool
    """The gradient was not finite on some rank, and no rank changed anything."""
    rows: Count | None = None
    samples: Count | None = None
    """One sample is one [CLS] A [SEP] B [SEP]; a row may hold several."""
    tokens: Count | None = None
    """Tokens that are not padding."""
    tokens_per_s: float
    """`tokens` by `step_s`."""
    step_s: float
    """Wall time of the step."""
    data_s: float | None = None
    """Of it, waiting for the next batch to be made; this and the next three are means over the ranks. On a GPU, these
    four and the slowest rank are those of the steps that were reported before."""
    compute_s: float | None = None
    """Of it, forward and backward, with the communication in them."""
    optimizer_s: float | None = None
    waiting_s: float | None = None
    """Of it, waiting for the slowest rank, as far as it shows between two exchanges of gradients or weights: null where
    they are exchanged after every micro-batch (ZeRO 2 and 3), and where there is only one."""
    slowest_rank: Count | None = None
    """The rank that waited least for the others; null where the time of waiting is."""
    peak_memory_bytes: Count | None = None
    """Of the rank that has used most so far: allocated on the GPU, or resident on the CPU."""
    set: str | None = None
    """The tensors record that names the numbers below; absent in older records, which follow the last one."""
    trust_ratio: Float32s | None
    """The factor on each tensor's step; null if the step was skipped, as are both norms."""
    weight_norm: Float32s | None = None
    """Norm of each tensor before the step; absent in older records."""
    update_norm: Float32s | None = None
    """Norm of each tensor's update before the trust ratio and the learning rate; absent in older records."""

    @field_validator("trust_ratio", mode="before")
    @classmethod
    def _older_skip(cls, value: Any, info: ValidationInfo) -> Any:
        """Older versions wrote a list, and 1 for every tensor of a step that was skipped."""
        return None if isinstance(value, list) and info.data.get("skipped") else value

    @model_validator(mode="after")
    def _vectors_agree(self) -> Self:
        lengths = {what: len(packed) // FLOAT32_BYTES for what, packed in self.vectors.items() if packed is not None}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{count} in {what}" for what, count in lengths.items())
            raise fault(f"has different counts of numbers: {found}", "send one number for each tensor in all of them")
        if self.skipped and lengths:
            raise fault(f"was skipped, but has {' and '.join(lengths)}", "send null: a skipped step has none")
        return self

    @property
    def vectors(self) -> dict[str, bytes | None]:
        """What holds one number per tensor, by the field's name."""
        return {what: getattr(self, what) for what in VECTORS}


class EvaluationRecord(_Record):
    """The model judged by text that it does not learn, the same rows with the same masks each time.

    Means over all of them. A number that is not finite is null.
    """

    kind: Literal["evaluation"] = "evaluation"
    step: Annotated[Count, Field(ge=1)]
    """Optimizer steps that the model had taken, over all phases."""
    attempt: Count
    phase: Count
    seq_len: Count
    """Tokens a row, those of the phase."""
    rows: Count
    masked: Count
    """Positions that the model had to restore."""
    mlm_loss: float | None
    """In nats a masked position."""
    mlm_accuracy: float | None
    """Share of the masked positions that were guessed right."""
    perplexity: float | None
    """exp(mlm_loss)."""
    nsp_loss: float | None
    """In nats; null where the job learns no next-sentence prediction, as is the next."""
    nsp_accuracy: float | None
    seconds: float

    @property
    def figures(self) -> str:
        """The means, and over what they were taken, for people."""
        nsp = "" if self.nsp_accuracy is None else f", NSP accuracy {self.nsp_accuracy:.1%}"
        return (
            f"MLM loss {shown(self.mlm_loss, '.3f')} nats, accuracy {shown(self.mlm_accuracy, '.1%')}, perplexity "
            f"{shown(self.perplexity, '.5g')}{nsp} ({counted(self.rows, 'row')} of {self.seq_len} tokens, after step "
            f"{self.step:,})"
        )


class CheckpointRecord(_Record):
    """A checkpoint was committed."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: Count
    path: Text
    size_bytes: Count
    seconds: float
    """From when it was begun until it was whole."""
    held_s: float | None = None
    """How long training stood still for it; absent in older records, where it did all the time."""
    request: Count | None = None
    """Number of the last checkpoint that had been asked for when this one was begun; absent in older records."""
    kept: list[Text] | None = None
    """Paths of all checkpoints that are there from now on, this one among them; absent in older records."""

    def fulfils(self, request: int) -> bool:
        """Whether this is a checkpoint that was asked for under this number, or under a lower one."""
        return self.request is None or self.request >= request


class AlertRecord(_Record):
    """Something that somebody should look at."""

    kind: Literal["alert"] = "alert"
    level: Literal["info", "warning", "error"]
    title: Text
    detail: Text = ""


class LogRecord(_Record):
    """A line of text."""

    kind: Literal["log"] = "log"
    text: Text
    done: Annotated[float, Field(ge=0, le=1)] | None = None
    """Which part of the preparation of the job's text is done, while that is a stage of its own; absent otherwise."""


AnyRecord = StatusRecord | TensorsRecord | StepRecord | EvaluationRecord | CheckpointRecord | AlertRecord | LogRecord


def _written(record: AnyRecord) -> AnyRecord:
    if record.seq < 1 or "time" not in record.model_fields_set:
        raise fault("has no number or no time", "give it a number `seq`, from 1, and a `time`")
    return record


Record = Annotated[AnyRecord, Field(discriminator="kind"), AfterValidator(_written)]
"""A record as it is read from a file, a request or the database: with its number."""
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
