"""When a run judges its model by held-out text, and what it reports of that."""

from collections.abc import Sequence
from pathlib import Path

from workers.contract.phases import PhaseWindow
from workers.contract.push import Command
from workers.contract.records import EvaluationRecord
from workers.evaluation.held_out import Figures, HeldOut

from .reporting.reporter import Reporter
from .reporting.telemetry import Telemetry, finite
from .step import Worker


class Judge:
    """Judges the model of a run whose job has held-out text. Every rank has one; only rank 0's reports.

    Attributes:
        newest: The newest evaluation, also one of an earlier attempt.
    """

    def __init__(
        self, corpus: Path, worker: Worker, telemetry: Telemetry, reporter: Reporter | None, attempt: int
    ) -> None:
        self.newest: EvaluationRecord | None = None
        self._corpus, self._worker, self._telemetry = corpus, worker, telemetry
        self._reporter, self._attempt = reporter, attempt
        self._sets: dict[int, HeldOut] = {}

    def is_due(self, window: PhaseWindow, step: int) -> bool:
        """Tell whether the model is judged after this step of a phase: at the interval, and at the phase's end."""
        spec = self._worker.spec
        is_time = step % spec.evaluation.every_steps == 0 or step == window.last_step
        return is_time and spec.data.validation is not None

    def judge(self, window: PhaseWindow, step: int) -> Command | None:
        """Judge the model after a step and report it. Every rank calls this.

        Returns:
            None, or the command that ends the run before this is done: then it is left to the next attempt.
        """
        held_out = self._held_out(window)
        while (figures := self._evaluate(held_out)) is None:
            if (command := self._telemetry.agree()).ends_the_run:
                return command
        self.newest = _record(figures, window, step, self._attempt)
        if self._reporter:
            self._reporter.emit(self.newest)
        self._telemetry.restart_clock()
        return None

    def make_up(self, windows: Sequence[PhaseWindow], step: int) -> Command | None:
        """Judge the model of the checkpoint that the run goes on from, where an earlier attempt had to leave it out."""
        for window in windows:
            if window.steps_before < step <= window.last_step and self.is_due(window, step) and not self._knows(step):
                return self.judge(window, step)
        return None

    def _knows(self, step: int) -> bool:
        return self.newest is not None and self.newest.step == step

    def _evaluate(self, held_out: HeldOut) -> Figures | None:
        worker, telemetry = self._worker, self._telemetry
        return held_out.evaluate(worker.module, worker.device, lambda: telemetry.wanted.ends_the_run)

    def _held_out(self, window: PhaseWindow) -> HeldOut:
        if window.index not in self._sets:
            self._sets[window.index] = HeldOut.open(self._corpus, self._worker.spec, window.phase)
        return self._sets[window.index]


def _record(figures: Figures, window: PhaseWindow, step: int, attempt: int) -> EvaluationRecord:
    return EvaluationRecord(
        step=step,
        attempt=attempt,
        phase=window.index,
        seq_len=window.phase.seq_len,
        rows=figures.rows,
        masked=figures.masked,
        mlm_loss=finite(figures.mlm_loss),
        mlm_accuracy=figures.mlm_accuracy,
        perplexity=finite(figures.perplexity),
        nsp_loss=finite(figures.nsp_loss),
        nsp_accuracy=figures.nsp_accuracy,
        seconds=figures.seconds,
    )
