"""The checkpoints of a run: the one that it goes on from, and those that it writes."""

from dataclasses import dataclass

from workers import ranks
from workers.checkpoints import retention
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.load import Loaded, load_newest
from workers.checkpoints.save import Saved, SoFar, remove, save
from workers.contract.manifests import SAMPLES_FORMAT
from workers.contract.phases import PhaseWindow
from workers.contract.records import AlertRecord, CheckpointRecord, LogRecord
from workers.contract.run.folder import CheckpointName, RunFolder

from .health import Health
from .judging import Judge
from .reporter import Reporter
from .step import Worker
from .telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Every rank has one; only rank 0's reports, and removes what need not stay."""

    folder: RunFolder
    attempt: int
    identity: str
    """Of the text: sha256 of the prepared corpus's manifest."""
    worker: Worker
    judge: Judge
    health: Health
    telemetry: Telemetry
    reporter: Reporter | None

    def resume(self) -> int:
        """Load the newest undamaged checkpoint; return the number of steps that are done. Every rank calls this.

        Raises:
            CheckpointError: there are checkpoints, and none can be used; or a branch has lost the one it began with.
        """
        loaded = load_newest(self.folder, self.worker.model, self.worker.optimizer, self.identity)
        if loaded is None:
            self._check_that_it_is_no_branch()
            return 0
        self.health.best_loss, self.judge.newest = loaded.manifest.best_loss, loaded.manifest.evaluation
        if self.reporter:
            self.reporter.summary.resume(loaded.manifest, str(self.folder.store.path(loaded.name.prefix)))
            self._tell(loaded, self.reporter)
        return loaded.name.step

    def _check_that_it_is_no_branch(self) -> None:
        start = self.worker.spec.start_from
        if start is not None:
            raise CheckpointError(
                f"{self.folder.checkpoints_path}: the checkpoint of step {start.step}, which this branch of "
                f"{start.run} began with, is not there. Put a copy of it in its place, or make the branch anew"
            )

    def _tell(self, loaded: Loaded, reporter: Reporter) -> None:
        step, start = loaded.name.step, self.worker.spec.start_from
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
        return step % self.worker.spec.checkpoint.every_steps == 0 or step == window.last_step

    def save(self, step: int) -> None:
        """Write the checkpoint of the step just taken. Every rank calls this."""
        if self.reporter:
            self.reporter.sync()  # what a checkpoint holds is never computed again, so no record of it may be lost
        name = CheckpointName(step, self.attempt)
        totals = self.reporter.summary.totals if self.reporter else ()
        saved = save(
            self.folder,
            name,
            self.worker.model,
            self.worker.optimizer,
            is_sound=self.health.close_window(),
            so_far=SoFar(self.health.best_loss, self.judge.newest, *totals),
            identity=self.identity,
        )
        ranks.as_rank_0_does(lambda: self._report_and_retire(name, saved))
        self.telemetry.restart_clock()

    def _report_and_retire(self, name: CheckpointName, saved: Saved) -> None:
        """Say which checkpoints stay, and remove the others only then: no path that was told of may be gone.

        Raises:
            SupersededError: a newer attempt has begun, which may go on from an older checkpoint than this one.
        """
        # A newer attempt that begins from here on finds this checkpoint, and needs none of those that go.
        self.folder.lock.check(self.attempt)
        found = retention.look(self.folder)
        gone = retention.superseded(found, name, self.worker.spec.checkpoint)
        kept = [each.prefix for each in found if found[each].state in retention.WHOLE and each not in gone]
        if self.reporter:
            self.reporter.emit(
                CheckpointRecord(
                    step=name.step,
                    path=str(saved.path),
                    size_bytes=saved.size_bytes,
                    seconds=saved.seconds,
                    kept=[str(self.folder.store.path(prefix)) for prefix in kept],
                )
            )
        for each in gone:
            try:
                remove(self.folder, each)
            except OSError as error:
                self._alert_of_what_stays(each, error)

    def _alert_of_what_stays(self, name: CheckpointName, error: OSError) -> None:
        if self.reporter:
            detail = f"{self.folder.store.path(name.prefix)}: {error}. Remove it by hand, or the disk fills up."
            alert = AlertRecord(level="warning", title="An old checkpoint cannot be removed", detail=detail)
            self.reporter.emit(alert)
