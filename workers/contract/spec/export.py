"""`export`: whether the finished model is written in the form that `transformers` loads."""

from .strict import Strict


class Export(Strict):
    """Whether the finished model is written in the form that `transformers` loads."""

    at_end: bool = True
    """Write it to the folder `export` of the run when the last step is done."""
