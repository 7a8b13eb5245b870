"""Where each phase of a job lies in the count of its steps and rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from .spec.phase import Phase


@dataclass(frozen=True, slots=True)
class PhaseWindow:
    """A phase and what comes before it. Steps are numbered from 1 over all phases, rows from 0."""

    index: int
    phase: Phase
    steps_before: int
    """Steps of all earlier phases."""
    rows_before: int
    """Rows of all earlier phases."""

    @property
    def last_step(self) -> int:
        """Number of the phase's last step."""
        return self.steps_before + self.phase.steps

    def steps_after(self, done: int) -> range:
        """Return the phase's steps that are left when the steps up to `done` have been taken."""
        return range(max(done, self.steps_before) + 1, self.last_step + 1)

    def first_row(self, step: int) -> int:
        """Return the number of the first row in the global batch of `step`."""
        return self.rows_before + (step - self.steps_before - 1) * self.phase.global_batch_size


def phase_windows(phases: Sequence[Phase]) -> list[PhaseWindow]:
    """Lay the phases one after the other."""
    windows: list[PhaseWindow] = []
    steps = rows = 0
    for index, phase in enumerate(phases):
        windows.append(PhaseWindow(index, phase, steps, rows))
        steps, rows = steps + phase.steps, rows + phase.steps * phase.global_batch_size
    return windows
