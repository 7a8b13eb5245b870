"""`failures`: how often a job is started again."""

from .strict import Count, Strict


class Failures(Strict):
    """How often a job is started again after a worker or a machine was lost."""

    max_restarts: Count = 3
    """Times in a row that an attempt may be lost without a new checkpoint in between."""
