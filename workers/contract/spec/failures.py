"""`failures`: when an attempt is given up, and how often a job is started again."""

from typing import Annotated

from pydantic import Field

from .strict import Count, Positive, Strict


class Failures(Strict):
    """When an attempt is given up, and how often a job is started again after a worker or a machine was lost."""

    max_restarts: Count = 3
    """Times in a row that an attempt may be lost without a new checkpoint in between."""
    hang_timeout_s: Annotated[Positive, Field(ge=10)] = 60
    """Seconds after which a worker that gives no sign of life, or a step that does not end, ends the attempt. A step
    may always take ten times as long as the median of the last ones."""
