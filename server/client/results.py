"""The types of what the client returns: dictionaries, as the API describes them.

Made by `python -m tests.server.client.results` from the description of the API, and not changed by hand.
"""

from typing import Any, Literal, TypedDict

JobStatus = Literal[
    "QUEUED", "STARTING", "RUNNING", "PAUSING", "PAUSED", "STOPPING", "SUCCEEDED", "FAILED", "CANCELLED"
]


Command = Literal["none", "checkpoint", "make_way", "pause", "stop"]


class EvaluationRecord(TypedDict):
    """The model judged by text that it does not learn, the same rows with the same masks each time."""

    seq: int
    time: str
    kind: Literal["evaluation"]
    step: int
    attempt: int
    phase: int
    seq_len: int
    rows: int
    masked: int
    mlm_loss: float | None
    mlm_accuracy: float | None
    perplexity: float | None
    nsp_loss: float | None
    nsp_accuracy: float | None
    seconds: float


TextState = Literal["unprepared", "preparing", "stopping", "refused", "ready"]


class Model(TypedDict):
    """A preset, its sizes overridden one by one, or all four sizes without a preset."""

    preset: str | None
    layers: int | None
    hidden: int | None
    heads: int | None
    intermediate: int | None
    max_positions: int
    dropout: float
    attention_dropout: float | None
    init_from: str | None


class Data(TypedDict):
    """The text and how it becomes training samples."""

    corpus: list[str]
    validation: list[str] | float | None
    vocab: int | str
    lowercase: bool | Literal["auto"]
    encoding_errors: Literal["refuse", "replace"]
    text_column: str
    deduplicate: bool
    mask_probability: float
    whole_word: bool
    next_sentence: bool
    packing: bool
    short_sequences: float


class Scaled(TypedDict):
    """A number that was found at one global batch, scaled to the phase's own."""

    base: float
    at_batch: int
    rule: Literal["sqrt", "linear"]


class Decay(TypedDict):
    """How the learning rate falls after the warm-up and the hold."""

    kind: Literal["linear", "poly", "cosine", "exponential", "constant"]
    power: float
    anchor: Literal["warmup", "start"]
    final_lr: float
    rate: float | None
    every_steps: int | None


class Phase(TypedDict):
    """A stretch of training with one sequence length and one global batch."""

    seq_len: int
    global_batch_size: int
    micro_batch_size: int
    steps: int
    lr: float | Scaled
    warmup: float | Scaled
    hold: float
    decay: Decay
    reset: list[Literal["step"]]


class Optimizer(TypedDict):
    """LAMB, or AdamW computed by the same code with every trust ratio held at 1."""

    name: Literal["lamb", "adamw"]
    betas: list[Any]
    eps: float
    weight_decay: float
    max_grad_norm: float | None
    bias_correction: bool
    grad_averaging: bool
    weight_norm_bounds: list[Any] | None
    trust_ratio_bounds: list[Any] | None
    moments: Literal["full", "bfloat16", "8bit"]
    no_decay: list[str]
    no_adaptation: list[str]


class WorkerRange(TypedDict):
    """Fewest and most workers that the job may run on."""

    min: int
    max: int


class Parallel(TypedDict):
    """How the job is spread over workers."""

    zero_stage: Literal["auto", 0, 1, 2, 3]
    workers: int | WorkerRange
    gpus_per_worker: int
    cpus_per_worker: int
    replicate: int


class Precision(TypedDict):
    """Number formats."""

    params: Literal["fp32"]
    compute: Literal["auto", "fp32", "bf16"]


class Execution(TypedDict):
    """How a step is computed, which changes its speed and its memory, not its result."""

    compile: Literal["auto", "on", "off"]
    activation_checkpointing: bool


class Evaluation(TypedDict):
    """How often the model is judged by the text of `data.validation`, and by how much of it."""

    every_steps: int
    sequences: int


class Checkpoint(TypedDict):
    """When checkpoints are written and which of them are kept."""

    every_steps: int
    keep: int
    keep_every: int
    keep_best: bool
    asynchronous: bool


class Export(TypedDict):
    """Whether the finished model is written in the form that `transformers` loads."""

    at_end: bool


class Failures(TypedDict):
    """When an attempt is given up, and how often a job is started again after a worker or a machine was lost."""

    max_restarts: int
    hang_timeout_s: int


class StartFrom(TypedDict):
    """A checkpoint of another run. Weights, moments, counters and the position in the text go on from there."""

    run: str
    step: int


class JobSpec(TypedDict):
    """A BERT pre-training job."""

    name: str
    labels: dict[str, str]
    priority: int
    seed: int
    model: Model
    data: Data
    phases: list[Phase]
    optimizer: Optimizer
    parallel: Parallel
    precision: Precision
    execution: Execution
    evaluation: Evaluation
    checkpoint: Checkpoint
    export: Export
    failures: Failures
    start_from: StartFrom | None


class Problem(TypedDict):
    """One thing that is wrong: the dotted field, its value, the fault and the remedy."""

    field: str
    value: str
    problem: str
    remedy: str


class Submitted(TypedDict):
    """A job that was accepted, and what may surprise its author."""

    id: str
    name: str
    status: JobStatus
    step: int
    total_steps: int
    attempt: int
    attempt_at: str | None
    restarts: int
    interruption: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    unreachable_since: str | None
    error: str | None
    command: Command
    checkpoint_requests: int
    stop_deadline: str | None
    world_size: int | None
    unigram_entropy_nats: float | None
    phase: int | None
    loss: float | None
    lr: float | None
    tokens_per_s: float | None
    pace_s: float | None
    seconds_left: float | None
    evaluation: EvaluationRecord | None
    checkpoint_step: int | None
    checkpoint_path: str | None
    checkpoint_s: float | None
    export_path: str | None
    labels: dict[str, str]
    owner: str
    priority: int
    queue_reason: str | None
    session: str | None
    queued_at: str | None
    text_state: TextState
    text_key: str | None
    text_done: float | None
    preparations: int
    parent: str | None
    sweep: str | None
    parent_step: int | None
    spec: JobSpec | None
    warnings: list[Problem]


class Job(TypedDict):
    """One training job. Times are aware UTC; the metrics are those of the last step."""

    id: str
    name: str
    status: JobStatus
    step: int
    total_steps: int
    attempt: int
    attempt_at: str | None
    restarts: int
    interruption: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    unreachable_since: str | None
    error: str | None
    command: Command
    checkpoint_requests: int
    stop_deadline: str | None
    world_size: int | None
    unigram_entropy_nats: float | None
    phase: int | None
    loss: float | None
    lr: float | None
    tokens_per_s: float | None
    pace_s: float | None
    seconds_left: float | None
    evaluation: EvaluationRecord | None
    checkpoint_step: int | None
    checkpoint_path: str | None
    checkpoint_s: float | None
    export_path: str | None
    labels: dict[str, str]
    owner: str
    priority: int
    queue_reason: str | None
    session: str | None
    queued_at: str | None
    text_state: TextState
    text_key: str | None
    text_done: float | None
    preparations: int
    parent: str | None
    sweep: str | None
    parent_step: int | None
    spec: JobSpec | None


class JobPage(TypedDict):
    """One page of jobs."""

    jobs: list[Job]
    next_cursor: str | None


class Memory(TypedDict):
    """Bytes by what they hold, at one moment."""

    weights: int
    gathered: int
    gradients: int
    moments: int
    activations: int


class Exchange(TypedDict):
    """The collectives of one kind in a step."""

    collective: str
    of: str
    ranks: int
    calls: int | None
    payload_bytes: int
    wire_bytes: float


class PhasePlan(TypedDict):
    """What a phase takes."""

    seq_len: int
    global_batch_size: int
    micro_batch_size: int
    micro_batches: int
    steps: int
    rows: int
    tokens: int
    epochs: float | None
    hours: float | None
    memory: Memory
    memory_bytes: int
    exchanges: list[Exchange]
    sent_bytes: int


class StagePlan(TypedDict):
    """What a worker holds and sends at a ZeRO stage."""

    stage: int
    memory: Memory
    memory_bytes: int
    sent_bytes: list[int]
    fits: bool | None


class Remedy(TypedDict):
    """Settings with which the job would fit."""

    settings: dict[str, Any]
    total_bytes: int


class Plan(TypedDict):
    """What a job takes on one number of workers."""

    name: str
    parameters: int
    vocab_size: int
    workers: int
    replicate: int
    sizes: list[int]
    allowed: list[int]
    stage: int
    compute: str
    activation_checkpointing: bool
    phases: list[PhasePlan]
    stages: list[StagePlan]
    checkpoint_bytes: int
    checkpoints_bytes: int
    tokens: int
    epochs: float | None
    hours: float | None
    memory_bytes: int | None
    fits: bool | None
    remedies: list[Remedy]


class QueuePlace(TypedDict):
    """The place of a job in the queue. Of a job that does not wait, all is null but the number of those that do."""

    waiting: int
    position: int | None
    priority: float | None
    reason: str | None
    starts_in_s: float | None


class StoredCheckpoint(TypedDict):
    """A checkpoint that is whole. What is null is not known: its manifest cannot be read, or is of an older version."""

    step: int
    attempt: int
    place: str
    is_newest: bool
    size_bytes: int | None
    world_size: int | None
    is_sound: bool | None
    evaluation: EvaluationRecord | None
    problem: str | None


class Checkpoints(TypedDict):
    """The checkpoints of a job, the oldest first."""

    checkpoints: list[StoredCheckpoint]


class SweepJobs(TypedDict):
    """A sweep with its jobs, in the order of its variants."""

    id: str
    jobs: list[Job]


class SweepSummary(TypedDict):
    """A sweep, and how its jobs fare."""

    id: str
    jobs: int
    statuses: dict[str, int]


class Sweeps(TypedDict):
    """All sweeps, the newest first."""

    sweeps: list[SweepSummary]


class MetricSeries(TypedDict):
    """A number of each bucket of steps, null where it is missing or not finite."""

    min: list[float | None]
    max: list[float | None]
    last: list[float | None]


class Metrics(TypedDict):
    """Series of a job's steps, pooled to buckets."""

    steps: list[int]
    series: dict[str, MetricSeries]


Role = Literal["admin", "operator", "reader", "job"]


class MadeToken(TypedDict):
    """A new token."""

    id: str
    owner: str
    role: Role
    created_at: str
    created_by: str
    expires_at: str
    token: str


class AdminToken(TypedDict):
    """The new admin token."""

    token: str


class Token(TypedDict):
    """What is known of a token that was made for somebody; the token itself is not."""

    id: str
    owner: str
    role: Role
    created_at: str
    created_by: str
    expires_at: str


class TokenList(TypedDict):
    """All tokens that were made and not revoked."""

    tokens: list[Token]


class Deed(TypedDict):
    """A request that changes something, and how it was answered."""

    seq: int
    time: str
    caller: str
    role: Role
    action: str
    job_id: str | None
    status: int
    address: str | None


class DeedPage(TypedDict):
    """One page of the audit log."""

    deeds: list[Deed]
    next_before: int | None
