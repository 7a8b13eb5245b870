"""What a run says of itself at its end: losses, held-out figures, tokens, time, and where the model lies."""

from datetime import timedelta

from workers.contract.manifests import CheckpointManifest
from workers.contract.problems import counted
from workers.contract.records import (
    AnyRecord,
    CheckpointRecord,
    EvaluationRecord,
    RunStatus,
    StatusRecord,
    StepRecord,
    shown,
)

_ENDED = {
    RunStatus.SUCCEEDED: "finished",
    RunStatus.PAUSED: "paused",
    RunStatus.CANCELLED: "cancelled",
    RunStatus.INTERRUPTED: "interrupted",
}


class Summary:
    """Listens to what a run reports, and sums it up."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0  # the seconds are those of steps, evaluations and waiting for checkpoints
        self._steps_done = 0
        self._known_since = 0  # the step; an older version did not write down what was before it
        self._step: StepRecord | None = None
        self._evaluation: EvaluationRecord | None = None
        self._checkpoint: str | None = None
        self._entropy: float | None = None

    @property
    def totals(self) -> tuple[int, float] | tuple[None, None]:
        """Tokens learned and seconds spent so far, over all attempts, where that is known."""
        return (None, None) if self._known_since else (self._tokens, self._seconds)

    def resume(self, manifest: CheckpointManifest, path: str) -> None:
        """Go on from the checkpoint in `path`, which says what there was before it, if its version did."""
        self._steps_done, self._checkpoint, self._evaluation = manifest.step, path, manifest.evaluation
        if manifest.tokens is None or manifest.seconds is None:
            self._known_since = manifest.step
        else:
            self._tokens, self._seconds = manifest.tokens, manifest.seconds

    def take(self, record: AnyRecord) -> None:
        """Take note of one record."""
        match record:
            case StepRecord():
                self._step, self._steps_done = record, record.step
                self._tokens += record.tokens or 0
                self._seconds += record.step_s
            case EvaluationRecord():
                self._evaluation = record
                self._seconds += record.seconds
            case CheckpointRecord():
                self._checkpoint = record.path
                self._seconds += record.seconds if record.held_s is None else record.held_s
            case StatusRecord():
                self._entropy = record.unigram_entropy_nats or self._entropy

    def text(self, outcome: RunStatus, total_steps: int, model: str | None = None) -> str:
        """Sum up in a few lines a run that ends with this status; its finished model lies in `model`."""
        since = f" since step {self._known_since}" if self._known_since else ""
        spent = timedelta(seconds=round(self._seconds))
        done = f"{_ENDED[outcome]} after {self._steps_done:,} of {counted(total_steps, 'step')}"
        lines = [f"{done}: {counted(self._tokens, 'token')} in {spent}{since}"]
        if self._step:
            guess = "" if self._entropy is None else f"; guessing by word frequency alone: MLM {self._entropy:.3f}"
            losses = (shown(loss, ".3f") for loss in (self._step.loss, self._step.mlm_loss, self._step.nsp_loss))
            lines.append("loss: {} nats (MLM {}, NSP {})".format(*losses) + guess)
        if self._evaluation:
            lines.append(f"held-out text: {self._evaluation.figures}")
        if model is not None:
            lines.append(f"model: {model}")
        elif self._checkpoint:
            lines.append(f"model: checkpoint {self._checkpoint}")
        return "\n".join(lines)
