"""How many requests one caller may send: enough for any page or script, too few to keep the server from others."""

import time
from collections.abc import Callable

from server.errors import TooManyRequestsError

PER_SECOND = 100.0
"""Requests a second that one caller may send for long."""
AT_ONCE = 1000.0
"""Requests that one caller may send at once, after a pause."""
_MOST_CALLERS = 10_000


class Rates:
    """Counts the requests of each caller.

    Args:
        clock: returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # of each caller: how many may still be sent, and since when

    def count(self, caller: str) -> None:
        """Count one request.

        Raises:
            TooManyRequestsError: the caller has sent too many.
        """
        now = self._clock()
        left = self._left_of(caller, now)
        if left < 1:
            raise TooManyRequestsError(
                f"more than {PER_SECOND:g} requests a second came from here: wait a second, and send fewer"
            )
        if len(self._left) >= _MOST_CALLERS:
            self._forget_the_idle(now)
        self._left[caller] = left - 1, now

    def _left_of(self, caller: str, now: float) -> float:
        left, since = self._left.get(caller, (AT_ONCE, now))
        return min(AT_ONCE, left + PER_SECOND * (now - since))

    def _forget_the_idle(self, now: float) -> None:
        """Forget callers who may send as many as if they had never come, and everybody where all of them are busy."""
        idle = [caller for caller in self._left if self._left_of(caller, now) >= AT_ONCE]
        for caller in idle or list(self._left):
            del self._left[caller]
