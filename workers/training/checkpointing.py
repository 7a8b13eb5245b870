"""The checkpoints of a run: the one that it goes on from, and those that it writes."""

import time
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, replace

from workers import ranks
from workers.checkpoints import retention
from workers.checkpoints.background import BackgroundWriter, at_once, in_a_thread
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.load import Loaded, committed, load_newest
from workers.checkpoints.save import Saved, nothing, save, state_of
from workers.contract.manifests import SAMPLES_FORMAT, CheckpointManifest
from workers.contract.phases import PhaseWindow
from workers.contract.records import AlertRecord, CheckpointRecord, LogRecord
from workers.contract.run.folder import CheckpointName, RunFolder

from .judging import Judge
from .reporting.reporter import Reporter
from .reporting.telemetry import Telemetry
from .safety.health import Health
from .step import Worker

PATIENCE_S = 60.0
"""So long is training held for the checkpoint before; then it goes on without a new one."""
_GOES_ON = "Training goes on, without new checkpoints until it is written"
_WAITS = "The run waits for it"


@dataclass(frozen=True, slots=True)
class _Pending:
    """A checkpoint that is being written."""

    step: int
    writing: Future[Saved]
    held_s: float
    """How long training has stood still for it so far."""
    request: int
    """Number of the last checkpoint that had been asked for when it was begun."""
    is_overdue: bool = False
    """Whether training was held for it as long as it may be."""


class Checkpoints:
    """Every rank has one; only rank 0's reports, and removes what need not stay.

    `identity` is that of the text: the sha256 of the prepared corpus's manifest.
    """

    def __init__(
        self,
        folder: RunFolder,
        attempt: int,
        identity: str,
        worker: Worker,
        judge: Judge,
        health: Health,
        telemetry: Telemetry,
        reporter: Reporter | None,
    ) -> None:
        self._folder, self._attempt, self._identity = folder, attempt, identity
        self._worker, self._judge, self._health, self._telemetry = worker, judge, health, telemetry
        self._reporter = reporter
        self._background = BackgroundWriter(worker.device) if worker.spec.checkpoint.asynchronous else None
        self._pending: _Pending | None = None
        self._removal: Future[list[AlertRecord]] | None = None

    def resume(self) -> int:
        """Load the newest undamaged checkpoint; return the number of steps that are done. Every rank calls this.

        Raises:
            CheckpointError: there are checkpoints, and none can be used; or a branch has lost the one it began with.
        """
        loaded = load_newest(self._folder, self._worker.model, self._worker.optimizer, self._identity)
        if loaded is None:
            self._check_that_it_is_no_branch()
            return 0
        self._health.best_loss, self._judge.newest = loaded.manifest.best_loss, loaded.manifest.evaluation
        if self._reporter:
            self._reporter.summary.resume(loaded.manifest, self._folder.store.place(loaded.name.prefix))
            self._tell(loaded, self._reporter)
        return loaded.name.step

    def _check_that_it_is_no_branch(self) -> None:
        start = self._worker.spec.start_from
        if start is not None:
            raise CheckpointError(
                f"{self._folder.checkpoints_place}: the checkpoint of step {start.step}, which this branch of "
                f"{start.run} began with, is not there. Put a copy of it in its place, or make the branch anew"
            )

    def _tell(self, loaded: Loaded, reporter: Reporter) -> None:
        step, start = loaded.name.step, self._worker.spec.start_from
        if start is not None and loaded.name.attempt == 0:  # else it has one of its own
            reporter.emit(LogRecord(text=f"a branch: goes on from step {start.step} of {start.run}"))
        for damage in loaded.damaged:
            detail = f"{damage}. The run goes on from step {step} instead."
            reporter.emit(AlertRecord(level="error", title="A checkpoint is damaged", detail=detail))
        if loaded.manifest.samples_format != SAMPLES_FORMAT:
            detail = (
                f"Step {step} was taken by a version that drew rows otherwise. They are of the same text, but an epoch "
                "takes them in another order: some are seen again early, and others late"
            )
            reporter.emit(
                AlertRecord(level="warning", title="Rows are drawn in another order from here", detail=detail)
            )

    def is_due(self, window: PhaseWindow, step: int) -> bool:
        """Tell whether a checkpoint is written after this step: at the interval, and at the phase's end."""
        return step % self._worker.spec.checkpoint.every_steps == 0 or step == window.last_step

    def save(self, step: int, *, wait: bool = False) -> None:
        """Begin to write the checkpoint of the step just taken. Every rank calls this.

        Training is held until the one before is written and this one is copied to memory; or until this one is written,
        if the caller waits for it or the job has checkpoint.asynchronous: false. Where the one before is not written in
        time, as on a file server that does not answer, this one is left out, unless it is the job's last.

        Raises:
            CheckpointError, SupersededError: as `settle` does, for this checkpoint or the one before.
        """
        is_last = step == self._worker.spec.total_steps
        if not self._is_written(_WAITS if is_last else _GOES_ON) and not is_last:
            self._telemetry.restart_clock()
            return
        self.settle(wait=True)
        begin = time.monotonic()
        draft = self._draft(step)
        request = self._reporter.begin_checkpoint() if self._reporter else 0
        state = state_of(self._worker.model, self._worker.optimizer)
        before_commit = self._reporter.sync if self._reporter else nothing
        if self._background:
            writing = self._background.begin(self._folder, draft, state, before_commit)
        else:
            writing = at_once(lambda: save(self._folder, draft, state, before_commit=before_commit))
        self._pending = _Pending(step, writing, time.monotonic() - begin, request)
        if wait:
            self._is_written(_WAITS)
        self.settle(wait=wait)
        self._telemetry.restart_clock()

    def settle(self, *, wait: bool = False) -> None:
        """Report a checkpoint that has been written meanwhile, and remove those that it supersedes; or wait for it.

        Where it could not be written, the run goes on without it, and an alert says so.

        Raises:
            CheckpointError: that of the job's last step could not be written, so that the model would be lost.
            SupersededError: a newer attempt has begun.
        """
        pending = self._pending
        if pending is None or not (wait or pending.writing.done()):
            return
        begin = time.monotonic()
        self._pending = None
        try:
            saved = pending.writing.result()
        except OSError as error:
            if pending.step == self._worker.spec.total_steps:
                raise CheckpointError(f"{error}. {self._remedy('Started again, the run would')}") from error
            detail = f"{error}. {self._remedy('Training goes on; if it were interrupted now, it would')}"
            self._emit(AlertRecord(level="error", title="A checkpoint could not be written", detail=detail))
        else:
            if ranks.rank() == 0:
                self._report_and_retire(saved, pending.held_s + time.monotonic() - begin, pending.request)

    def finish(self) -> None:
        """Wait for what is being written and removed. Every rank calls this at the end of a run.

        Raises:
            CheckpointError, SupersededError: as `settle` does.
        """
        self._is_written(_WAITS)
        self.settle(wait=True)
        self._settle_removal()

    def _is_written(self, follows: str) -> bool:
        """Wait a while for the checkpoint before; tell on every rank whether all have written it.

        Every rank calls this. The first time that it takes too long, an alert says so, and what follows.
        """
        pending = self._pending
        if pending and not pending.is_overdue:
            begin = time.monotonic()
            futures.wait([pending.writing], PATIENCE_S)
            self._pending = pending = replace(pending, held_s=pending.held_s + time.monotonic() - begin)
        is_late = pending is not None and not pending.writing.done()
        if not ranks.any_of(is_late, self._worker.device):
            return True
        if pending and is_late and not pending.is_overdue:
            self._pending = replace(pending, is_overdue=True)
            path = self._folder.store.place(CheckpointName(pending.step, self._attempt).prefix)
            detail = (
                f"{path}: the checkpoint of step {pending.step:,} is still being written after a wait of "
                f"{PATIENCE_S:g} s. {follows}. See whether the disk or file server answers"
            )
            self._emit(AlertRecord(level="error", title="A checkpoint takes too long to write", detail=detail))
        return False

    def _draft(self, step: int) -> CheckpointManifest:
        """Return the manifest of a checkpoint that has no files yet; only rank 0's is used."""
        tokens, seconds = self._reporter.summary.totals if self._reporter else (None, None)
        is_sound = self._health.close_window()  # this may lower the best loss
        return CheckpointManifest(
            step=step,
            world_size=ranks.world_size(),
            attempt=self._attempt,
            identity=self._identity,
            samples_format=SAMPLES_FORMAT,
            files={},
            is_sound=is_sound,
            best_loss=self._health.best_loss,
            evaluation=self._judge.newest,
            tokens=tokens,
            seconds=seconds,
        )

    def _report_and_retire(self, saved: Saved, held_s: float, request: int) -> None:
        """Say which checkpoints stay, and remove the others only then: no path that was told of may be gone.

        Raises:
            SupersededError: a newer attempt has begun, which may go on from an older checkpoint than this one.
        """
        self._settle_removal()
        gone, kept = self._gone_and_kept(saved)
        self._emit(
            CheckpointRecord(
                step=saved.name.step,
                path=saved.place,
                size_bytes=saved.size_bytes,
                seconds=saved.seconds,
                held_s=held_s,
                request=request,
                kept=kept,
            )
        )
        self._removal = in_a_thread(lambda: self._remove(gone))

    def _gone_and_kept(self, saved: Saved) -> tuple[list[CheckpointName], list[str] | None]:
        """Choose those that go, and name where those are that stay; where the store cannot tell now, none goes."""
        try:
            # A newer attempt that begins from here on finds this checkpoint, and needs none of those that go.
            self._folder.check(self._attempt)
            found = retention.look(self._folder)
        except OSError as error:
            detail = f"{error}. They stay until the next checkpoint is written."
            title = "The older checkpoints could not be looked at"
            self._emit(AlertRecord(level="warning", title=title, detail=detail))
            return [], None
        gone = retention.superseded(found, saved.name, self._worker.spec.checkpoint)
        kept = [each.prefix for each in found if found[each].state in retention.WHOLE and each not in gone]
        return gone, [self._folder.store.place(prefix) for prefix in kept]

    def _remove(self, gone: Sequence[CheckpointName]) -> list[AlertRecord]:
        alerts = []
        for name in gone:
            try:
                self._folder.remove_checkpoint(name)
            except OSError as error:
                detail = f"{self._folder.store.place(name.prefix)}: {error}. Remove it by hand, or the disk fills up."
                title = "An old checkpoint cannot be removed"
                alerts.append(AlertRecord(level="warning", title=title, detail=detail))
        return alerts

    def _settle_removal(self) -> None:
        removal, self._removal = self._removal, None
        for alert in removal.result() if removal else []:
            self._emit(alert)

    def _remedy(self, then: str) -> str:
        remedy = "Have the store answer and take objects again" if self._folder.storage else "Make room on the disk"
        try:
            whole = [name.step for name in committed(self._folder)]
        except OSError:
            return f"{then} go on from the newest checkpoint that is there. {remedy}"
        return f"{then} {f'go on from step {whole[-1]:,}' if whole else 'begin anew'}. {remedy}"

    def _emit(self, record: AlertRecord | CheckpointRecord) -> None:
        if self._reporter:
            self._reporter.emit(record)
