"""`checkpoint`: when checkpoints are written and which of them are kept."""

from .strict import Count, Positive, Strict


class Checkpoint(Strict):
    """When checkpoints are written and which of them are kept."""

    every_steps: Positive = 200
    """Optimizer steps from one checkpoint to the next; the last step of each phase always has one."""
    keep: Positive = 3
    """Number of checkpoints kept, the newest ones. Those that are written while the loss is more than 20 % above its
    lowest, or while steps are skipped, are counted apart, so that a run which diverges keeps its good ones."""
    keep_every: Count = 0
    """Every so many checkpoints, one stays for good: those of the steps that keep_every · every_steps divides; 0 for
    none."""
    keep_best: bool = True
    """Whether the best checkpoint of each phase stays for good: the one with the lowest held-out MLM loss, of those
    whose own step was evaluated. The last step of a phase always is, where the job has held-out text."""

    asynchronous: bool = True
    """Whether training goes on while a checkpoint is written. Each worker then holds a copy of its share of weights and
    moments in the memory of its machine."""

    def is_milestone(self, step: int) -> bool:
        """Tell whether the checkpoint of this step stays for good because it is one of every `keep_every`."""
        return self.keep_every > 0 and step % (self.keep_every * self.every_steps) == 0
