"""`failures`: how often a job is started again."""

from typing import Annotated

from pydantic import Field

from .strict import Strict


class Failures(Strict):
    """How often a job is started again after a worker or a machine was lost."""

    max_restarts: Annotated[int, Field(ge=0)] = 3
    """Attempts that may follow the first one."""
