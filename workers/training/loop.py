"""The training loop, top to bottom. It knows no Ray and no server.

Everything that a step computes is a function of (specification, step): the rows of a step are numbers
`(rows before it) ... (rows before it) + global_batch_size - 1`, each rank takes its share of them, and losses are
divided by counts over the global batch. So the number of workers changes who computes what, not what is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from workers import ranks
from workers.contract.manifests import ShardsManifest, read_shards
from workers.contract.phases import PhaseWindow, phase_windows
from workers.contract.push import Command
from workers.contract.records import AlertRecord, LogRecord, RunStatus, StatusRecord
from workers.contract.run.folder import RunFolder
from workers.contract.spec.job import JobSpec
from workers.samples.dataset import PreTrainingData, open_phase

from .admission import Text, admit, environment
from .checkpointing import Checkpoints
from .export_at_end import export_at_end
from .feeding import feed
from .first_weights import take_first_weights
from .judging import Judge
from .optimizer import reset_step, schedule_of
from .reporting.reporter import Reporter
from .reporting.telemetry import Telemetry
from .safety.health import Health
from .safety.signals import StopRequest
from .safety.watch import Watch
from .step import Worker, set_up, take_step

MAX_BAD_IN_A_ROW = 20
"""Steps without a finite loss and gradient after which a run is given up."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the phases of one run share."""

    attempt: int
    worker: Worker
    checkpoints: Checkpoints
    judge: Judge
    health: Health
    telemetry: Telemetry
    reporter: Reporter | None
    """On rank 0 alone."""
    stop: StopRequest
    watch: Watch


class DivergedError(RuntimeError):
    """The loss or the gradient was not finite for many steps in a row."""


def train(
    spec: JobSpec,
    folder: RunFolder,
    data: Path,
    *,
    reporter: Reporter | None,
    attempt: int = 1,
    stop: StopRequest | None = None,
) -> RunStatus:
    """Train the job of `spec` to its end, from its newest whole checkpoint if there is one. Every rank calls this.

    Args:
        spec: the job.
        folder: the run folder, shared by all ranks and all attempts.
        data: where prepared text is kept.
        reporter: where records go; on rank 0 alone.
        attempt: how often the control plane has launched the job.
        stop: whether this process was told to end. If any rank was, all of them end after the same step.

    Returns:
        SUCCEEDED; CANCELLED, PAUSED or INTERRUPTED if the control plane asked for it, or a process was told to end.

    Raises:
        SpecError: the batches do not divide over so many workers, the job does not allow so many, or the folder that it
            starts from does not fit it.
        CorpusError: there is no text to train on, or it is not the one that the run was begun on.
        SupersededError: a newer attempt has begun.
        CheckpointError: there are checkpoints, and all of them are damaged or the newest is of another text or model;
            or that of the last step could not be written.
        DivergedError: the loss or the gradient was not finite for `MAX_BAD_IN_A_ROW` steps.
    """
    text = admit(spec, folder, data, attempt, reporter)
    shards = read_shards(text.folder)
    run = _assemble(spec, folder, text, shards, reporter, attempt, StopRequest() if stop is None else stop)
    done = run.checkpoints.resume()
    _announce(run, shards.unigram_entropy_nats)
    windows = phase_windows(spec.phases)
    with run.stop.while_training(), run.watch:
        outcome = _outcome(run.judge.make_up(windows, done))
        for window in windows:
            if outcome is RunStatus.SUCCEEDED and window.steps_after(done):
                outcome = _train_phase(run, window, done, open_phase(text.folder, spec, window.phase))
        run.checkpoints.finish()
        is_due = outcome is RunStatus.SUCCEEDED and spec.export.at_end
        exported = export_at_end(folder, spec, data, reporter) if is_due else None
        _report_the_end(run, outcome, exported)
    return outcome


def _assemble(
    spec: JobSpec,
    folder: RunFolder,
    text: Text,
    shards: ShardsManifest,
    reporter: Reporter | None,
    attempt: int,
    stop: StopRequest,
) -> Run:
    """Put together what trains: the model on its device, and what looks after it."""
    worker = set_up(spec, shards, lambda module: take_first_weights(spec, folder, text.folder, module, reporter))
    health = Health()
    telemetry = Telemetry(worker.optimizer, worker.device, reporter, attempt, health, stop, worker.clock)
    judge = Judge(text.folder, worker, telemetry, reporter, attempt)
    checkpoints = Checkpoints(folder, attempt, text.identity, worker, judge, health, telemetry, reporter)
    limit = timedelta(seconds=spec.failures.hang_timeout_s)
    watch = Watch(limit, _alert_of_a_hang(reporter) if reporter else None)
    return Run(attempt, worker, checkpoints, judge, health, telemetry, reporter, stop, watch)


def _alert_of_a_hang(reporter: Reporter) -> Callable[[str], None]:
    return lambda detail: reporter.emit(AlertRecord(level="error", title="A rank hangs", detail=detail))


def _announce(run: Run, entropy: float) -> None:
    ran_on = environment(run.worker.device)
    if run.reporter is None:
        return
    run.reporter.emit(
        StatusRecord(
            status=RunStatus.RUNNING,
            attempt=run.attempt,
            world_size=ranks.world_size(),
            unigram_entropy_nats=entropy,
            zero_stage=run.worker.zero_stage,
            **ran_on,
        )
    )


def _report_the_end(run: Run, outcome: RunStatus, exported: str | None) -> None:
    if run.reporter is None:
        return
    summary = run.reporter.summary.text(outcome, run.worker.spec.total_steps, exported)
    run.reporter.emit(LogRecord(text=summary))
    is_loss = False if outcome is RunStatus.INTERRUPTED else None
    run.reporter.emit(StatusRecord(status=outcome, attempt=run.attempt, is_loss=is_loss, export_path=exported))


def _train_phase(run: Run, window: PhaseWindow, done: int, data: PreTrainingData) -> RunStatus:
    """Take the steps of a phase that are left."""
    phase, spec = window.phase, run.worker.spec
    lr_of = schedule_of(phase)
    if done <= window.steps_before and "step" in phase.reset:
        reset_step(run.worker.optimizer)
    for step, share in feed(window, done, data, run.worker.device):
        lr = lr_of(step - window.steps_before)
        sums = take_step(run.worker, step, lr, share)
        run.checkpoints.settle()
        saves = run.checkpoints.is_due(window, step)
        judges = run.judge.is_due(window, step)
        # What a checkpoint holds is never computed again, so it must have been reported.
        command = run.telemetry.record(step, window.index, lr, sums, flush=saves or judges)
        run.watch.step_taken(goes_on=not (saves or judges or command is not Command.NONE))
        _give_up_where_hopeless(run, window, step)
        # Before the checkpoint of the same step: a run that goes on from there is not judged again.
        unjudged = run.judge.judge(window, step) if judges else None
        command = unjudged or command
        if saves or command is not Command.NONE:
            run.checkpoints.save(step, wait=command is not Command.NONE)  # who asks for one has it after the step
            command = _command_after_saving(run, command)
        if command in _ENDS and (unjudged or step < spec.total_steps):
            return _ENDS[command]
    return RunStatus.SUCCEEDED


_ENDS = {
    Command.STOP: RunStatus.CANCELLED,
    Command.PAUSE: RunStatus.PAUSED,
    Command.MAKE_WAY: RunStatus.INTERRUPTED,
}


def _outcome(command: Command | None) -> RunStatus:
    return RunStatus.SUCCEEDED if command is None else _ENDS[command]


def _give_up_where_hopeless(run: Run, window: PhaseWindow, step: int) -> None:
    if run.health.bad_in_a_row < MAX_BAD_IN_A_ROW:
        return
    run.checkpoints.finish()
    phase = f"phases[{window.index}]"
    raise DivergedError(
        f"the loss or the gradient was not finite from step {step - MAX_BAD_IN_A_ROW + 1} to {step} of {phase}; "
        f"lower {phase}.lr {window.phase.peak_lr:g} or lengthen its warmup {window.phase.warmup_share:g}"
    )


def _command_after_saving(run: Run, command: Command) -> Command:
    """End at this checkpoint, not at another one a step later, where a rank was told to end meanwhile."""
    told_to_end = any(ranks.gather(run.stop.is_asked))
    return run.stop.command if told_to_end and not command.ends_the_run else command
