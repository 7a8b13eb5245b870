"""`checkpoint`: when checkpoints are written and how many are kept."""

from .strict import Positive, Strict


class Checkpoint(Strict):
    """When checkpoints are written and how many are kept."""

    every_steps: Positive = 200
    keep: Positive = 3
