"""`start_from`: the checkpoint of another run that a branch goes on from."""

from typing import Annotated

from pydantic import Field

from .strict import Positive, Strict


class StartFrom(Strict):
    """A checkpoint of another run. Weights, moments, counters and the position in the text go on from there."""

    run: Annotated[str, Field(min_length=1)]
    """The id of a job, or the path of a run folder; what has a slash is a path."""
    step: Positive
    """Step of the checkpoint, counted over all phases."""
