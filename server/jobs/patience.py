"""For how long something has been waited for, by a clock that nobody can set."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

LONGEST_PAUSE_S = 15.0
"""More than this between two looks does not count: who stood still meanwhile did not wait."""


class Patience:
    """Remembers since when what is waited for has been waited for. Nothing is stored: the next server begins anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = clock()
        self._waited_s: dict[str, float] = {}

    def look(self, waited_for: Iterable[str]) -> Mapping[str, timedelta]:
        """Return how long each of these has been waited for at every look; to be called regularly.

        What is not among them is forgotten.
        """
        before, self._looked_at = self._looked_at, self._clock()
        passed_s = min(self._looked_at - before, LONGEST_PAUSE_S)
        known = self._waited_s
        self._waited_s = {what: known[what] + passed_s if what in known else 0.0 for what in waited_for}
        return {what: timedelta(seconds=waited_s) for what, waited_s in self._waited_s.items()}
