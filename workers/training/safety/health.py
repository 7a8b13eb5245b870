"""Whether the loss of a run is in good order, judged from one checkpoint to the next."""

FAR_ABOVE = 1.2
"""A mean loss above the lowest one by this factor is out of order: of a BERT that diverges it rises to about that of
guessing by frequency, and noise between checkpoints, or another sequence length, moves it by a few per cent."""


class Health:
    """Looks at the steps between two checkpoints. All ranks see the same numbers, so all come to the same verdict.

    Attributes:
        best_loss: The lowest mean loss between two checkpoints, in nats.
        bad_in_a_row: The last steps whose loss or gradient was not finite.
    """

    def __init__(self) -> None:
        self.best_loss: float | None = None
        self.bad_in_a_row = 0
        self._losses: list[float] = []

    def observe(self, loss: float | None, *, skipped: bool) -> None:
        """Take note of one step; `loss` is None where it was not finite."""
        self.bad_in_a_row = self.bad_in_a_row + 1 if skipped or loss is None else 0
        if loss is not None:
            self._losses.append(loss)

    def close_window(self) -> bool:
        """Say whether the steps since the last call were in good order, and begin to look anew."""
        losses, self._losses = self._losses, []
        if self.bad_in_a_row or not losses:
            return False
        mean = sum(losses) / len(losses)
        if self.best_loss is not None and mean > FAR_ABOVE * self.best_loss:
            return False
        self.best_loss = mean if self.best_loss is None else min(mean, self.best_loss)
        return True
