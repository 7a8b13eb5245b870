"""How long a server has waited for the attempts that are to end, by a clock that nobody can set."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from .job import Job

LONGEST_PAUSE_S = 5.0
"""More than this between two looks does not count: a server that stood still has answered no run meanwhile."""


class Patience:
    """Remembers since when attempts have been ending. Nothing of it is stored: the next server begins anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = clock()
        self._waited_s: dict[str, float] = {}

    def look(self, jobs: Iterable[Job]) -> Mapping[str, timedelta]:
        """Return, by job id, how long each of these jobs that is ending has been seen so; to be called at each turn."""
        before, self._looked_at = self._looked_at, self._clock()
        passed_s = min(self._looked_at - before, LONGEST_PAUSE_S)
        ending = {job.submission_id: job.id for job in jobs if job.is_ending}
        known = self._waited_s
        self._waited_s = {name: known[name] + passed_s if name in known else 0.0 for name in ending}
        return {job_id: timedelta(seconds=self._waited_s[name]) for name, job_id in ending.items()}
