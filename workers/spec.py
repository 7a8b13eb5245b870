"""The job specification: the one document that the REST API, the command line and the workers share."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .problems import fault

MAX_VOCABULARY = 65_536  # token shards are uint16
MAX_WORKERS = 65_536
_SPECIAL_TOKENS = 5

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    """Unknown keys are refused, values are frozen, text is not taken for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Architecture(_Strict):
    """The sizes of a BERT."""

    layers: Positive
    hidden: Positive
    heads: Positive
    intermediate: Positive


PRESETS: Mapping[str, Architecture] = {
    "bert-tiny": Architecture(layers=2, hidden=128, heads=2, intermediate=512),
    "bert-mini": Architecture(layers=4, hidden=256, heads=4, intermediate=1024),
    "bert-small": Architecture(layers=4, hidden=512, heads=8, intermediate=2048),
    "bert-base-uncased": Architecture(layers=12, hidden=768, heads=12, intermediate=3072),
    "bert-large-uncased": Architecture(layers=24, hidden=1024, heads=16, intermediate=4096),
}


class Model(_Strict):
    """A preset, its sizes overridden one by one, or all four sizes without a preset."""

    preset: str | None = None
    layers: Positive | None = None
    hidden: Positive | None = None
    heads: Positive | None = None
    intermediate: Positive | None = None
    max_positions: Positive = 512
    """Longest sequence that the position embedding holds, in tokens."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @field_validator("preset")
    @classmethod
    def _is_known(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in PRESETS:
            raise fault("there is no such preset", f"write one of {', '.join(PRESETS)}, or give the sizes")
        return preset

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        missing = [name for name in Architecture.model_fields if getattr(self, name) is None]
        if self.preset is None and missing:
            raise fault(f"neither a preset nor {', '.join(missing)}", "name a preset or give all four sizes")
        if self.architecture.hidden % self.architecture.heads:
            raise fault(
                f"hidden {self.architecture.hidden} is not divisible by heads {self.architecture.heads}",
                "make hidden a multiple of heads",
            )
        return self

    @property
    def architecture(self) -> Architecture:
        """The sizes, after the preset and its overrides."""
        preset = {} if self.preset is None else PRESETS[self.preset].model_dump()
        given = {name: value for name in Architecture.model_fields if (value := getattr(self, name)) is not None}
        return Architecture(**preset | given)


class Data(_Strict):
    """The text and how it becomes training samples."""

    corpus: tuple[str, ...] = Field(min_length=1)
    """Files or folders of .txt or .txt.gz on the machine that trains, or `builtin:austen`."""
    vocab: int | str = 30_522
    """A number trains a WordPiece vocabulary of that size from the corpus; text is the path of a vocab.txt."""
    mask_probability: Annotated[float, Field(gt=0, lt=1)] = 0.15

    @field_validator("vocab")
    @classmethod
    def _fits_uint16(cls, vocab: int | str) -> int | str:
        if isinstance(vocab, int) and not _SPECIAL_TOKENS < vocab <= MAX_VOCABULARY:
            raise fault(
                f"a vocabulary has more than {_SPECIAL_TOKENS} and at most {MAX_VOCABULARY} entries",
                "write for example 30522",
            )
        return vocab


class Decay(_Strict):
    """How the learning rate falls after the warm-up."""

    kind: Literal["linear", "poly", "constant"] = "linear"
    power: Annotated[float, Field(gt=0)] = 1.0
    """Exponent of `poly`."""
    anchor: Literal["warmup", "start"] = "warmup"
    """Where the decay counts from: the end of the warm-up, or step 0 as NVIDIA's recipe does, with a jump down."""

    @model_validator(mode="after")
    def _power_is_used(self) -> Self:
        if self.power != 1 and self.kind != "poly":
            raise fault(f"{self.kind} decay has no power", "write kind: poly, or leave power out", "power", self.power)
        return self


class Phase(_Strict):
    """A stretch of training with one sequence length and one global batch."""

    seq_len: Annotated[int, Field(ge=8)]
    """Tokens a sequence."""
    global_batch_size: Positive
    """Sequences a step, over all workers."""
    micro_batch_size: Positive = 32
    """Sequences of one forward pass on one worker; the accumulation count follows from it."""
    steps: Positive
    lr: Annotated[float, Field(gt=0)]
    warmup: Fraction = 0.1
    """Share of the phase's steps over which the learning rate rises from zero."""
    decay: Decay = Decay()
    reset: tuple[Literal["step"], ...] = ()
    """`step` starts the optimizer's step count (its bias correction) anew; the moments are kept."""


class Optimizer(_Strict):
    """LAMB, or AdamW computed by the same code with every trust ratio held at 1."""

    name: Literal["lamb", "adamw"] = "lamb"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    bias_correction: bool = True
    grad_averaging: bool = True
    weight_norm_bounds: tuple[float, float] | None = None
    trust_ratio_bounds: tuple[float, float] | None = None
    moments: Literal["full", "bfloat16", "8bit"] = "full"
    """How the two moments are stored: in 8, 4 or 2.03 bytes a parameter; the narrow ones round stochastically."""
    no_decay: tuple[str, ...] = ("bias", "LayerNorm")
    """Parts of parameter names that take no weight decay."""
    no_adaptation: tuple[str, ...] = ("bias", "LayerNorm")
    """Parts of parameter names whose trust ratio is held at 1."""

    @field_validator("weight_norm_bounds", "trust_ratio_bounds")
    @classmethod
    def _is_ordered(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not 0 <= bounds[0] <= bounds[1]:
            raise fault("bounds are two numbers, 0 <= lower <= upper", "write for example [0.01, 10.0]")
        return bounds


class WorkerRange(_Strict):
    """Fewest and most workers that the job may run on."""

    min: Positive
    max: Annotated[int, Field(ge=1, le=MAX_WORKERS)]

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.min > self.max:
            raise fault(f"min {self.min} is more than max {self.max}", "swap them")
        return self


class Parallel(_Strict):
    """How the job is spread over workers."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    """0: replicas (DDP). 1, 2, 3: optimizer state, also gradients, also parameters sharded (FSDP2)."""
    workers: int | WorkerRange = 1
    gpus_per_worker: Annotated[int, Field(ge=0)] = 0
    cpus_per_worker: Positive = 1
    """Processors reserved for a worker, and threads that torch uses in it on a CPU."""
    replicate: Positive = 1
    """Copies of the sharded model (HSDP): each group of workers / replicate workers holds one."""

    @field_validator("workers")
    @classmethod
    def _is_positive(cls, workers: int | WorkerRange) -> int | WorkerRange:
        if isinstance(workers, int) and not 1 <= workers <= MAX_WORKERS:
            raise fault(f"a job has 1 to {MAX_WORKERS} workers", "write for example 2, or {min: 2, max: 8}")
        return workers

    @property
    def range(self) -> WorkerRange:
        """Fewest and most workers, also where one number was given."""
        return (
            self.workers if isinstance(self.workers, WorkerRange) else WorkerRange(min=self.workers, max=self.workers)
        )


class Precision(_Strict):
    """Number formats. `auto` computes in bf16 on GPUs that have it and in fp32 elsewhere."""

    params: Literal["fp32"] = "fp32"
    compute: Literal["auto", "fp32", "bf16"] = "auto"


class Checkpoint(_Strict):
    """When checkpoints are written and how many are kept."""

    every_steps: Positive = 200
    keep: Positive = 3


class Failures(_Strict):
    """How often a job is started again after a worker or a machine was lost."""

    max_restarts: Annotated[int, Field(ge=0)] = 3


class JobSpec(_Strict):
    """A BERT pre-training job."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    labels: dict[str, str] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: Model = Model(preset="bert-base-uncased")
    data: Data
    phases: tuple[Phase, ...] = Field(min_length=1)
    optimizer: Optimizer = Optimizer()
    parallel: Parallel = Parallel()
    precision: Precision = Precision()
    checkpoint: Checkpoint = Checkpoint()
    failures: Failures = Failures()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for number, phase in enumerate(self.phases):
            if phase.seq_len > self.model.max_positions:
                raise fault(
                    f"the position embedding holds model.max_positions = {self.model.max_positions} tokens",
                    "shorten seq_len or raise max_positions",
                    f"phases[{number}].seq_len",
                    phase.seq_len,
                )
        if not self.world_sizes():
            raise self._no_world_size()
        return self

    def world_sizes(self) -> list[int]:
        """Numbers of workers, ascending, over which every phase's global batch divides into whole micro-batches."""
        workers = self.parallel.range
        most = min(phase.global_batch_size // phase.micro_batch_size for phase in self.phases)
        return [size for size in range(workers.min, min(workers.max, most) + 1) if self._divides(size)]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def _divides(self, world_size: int) -> bool:
        whole = all(phase.global_batch_size % (phase.micro_batch_size * world_size) == 0 for phase in self.phases)
        return whole and world_size % self.parallel.replicate == 0

    def _no_world_size(self) -> PydanticCustomError:
        workers = self.parallel.range
        sizes = range(workers.min, workers.max + 1)
        for number, phase in enumerate(self.phases):
            if all(phase.global_batch_size % (phase.micro_batch_size * size) for size in sizes):
                return fault(
                    f"does not divide into whole micro-batches of {phase.micro_batch_size} on {workers.max} workers",
                    f"write a multiple of {phase.micro_batch_size * workers.max}, or change micro_batch_size",
                    f"phases[{number}].global_batch_size",
                    phase.global_batch_size,
                )
        return fault(
            f"{workers.max} workers do not divide into {self.parallel.replicate} groups of one size",
            "choose workers as a multiple of replicate",
            "parallel.replicate",
            self.parallel.replicate,
        )
