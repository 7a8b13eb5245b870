"""`checkpoint`: when checkpoints are written and how many are kept."""

from .strict import Positive, Strict


class Checkpoint(Strict):
    """When checkpoints are written and how many are kept."""

    every_steps: Positive = 200
    """Optimizer steps from one checkpoint to the next; the last step always has one."""
    keep: Positive = 3
    """Number of checkpoints kept, the newest ones. Those that are written while the loss is more than 20 % above its
    lowest, or while steps are skipped, are counted apart, so that a run which diverges keeps its good ones."""
