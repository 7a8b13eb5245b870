"""`failures`: how often a job is started again."""

from .strict import Count, Strict


class Failures(Strict):
    """How often a job is started again after a worker or a machine was lost."""

    max_restarts: Count = 3
    """Attempts that may follow the first one."""
