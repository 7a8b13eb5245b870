"""`evaluation`: how often the model is judged by text that it does not learn, and by how much of it."""

from .strict import Positive, Strict


class Evaluation(Strict):
    """How often the model is judged by the text of `data.validation`, and by how much of it."""

    every_steps: Positive = 400
    """Optimizer steps from one evaluation to the next; the last step of each phase always has one."""
    sequences: Positive = 10_000
    """Rows of the phase's seq_len, the same ones with the same masks each time; a shorter text is used whole."""
