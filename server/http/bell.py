"""Wakes the streams that wait for changes of jobs, a few at a time and not at each single change."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from server.errors import TooManyStreamsError

MOST_STREAMS = 1_000
_PAUSE_S = 0.25
_PAUSE_FOR_EACH_S = 3.0
"""Seconds of pause for each second that waking all streams took: requests get most of the time."""
_TOGETHER = 5


class Listener:
    """Which jobs have changed since one stream last asked."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._woken = asyncio.Event()

    def hear(self, job_ids: set[str]) -> None:
        """Remember changes and wake the stream."""
        self._changed |= job_ids
        self._woken.set()

    @property
    def is_woken(self) -> bool:
        """Whether there is something to take."""
        return self._woken.is_set()

    async def wait(self) -> None:
        """Wait for a change."""
        await self._woken.wait()

    def take(self) -> set[str]:
        """Return the ids of the jobs that changed, without waiting."""
        self._woken.clear()
        changed, self._changed = self._changed, set()
        return changed

    def wake(self) -> None:
        """Wake the stream without a change."""
        self._woken.set()


class Bell:
    """Passes changes of jobs from any thread to the streams on the event loop that made it.

    The first change after a pause wakes them at once, those that follow it together, four times a second at most, and
    less often where there are hundreds of streams. They are woken a few at a time, so that requests do not wait until
    all of them have sent what is new.

    Args:
        on_ring: hears the id of a job at each change, on the event loop and before any stream does.
    """

    def __init__(self, on_ring: Callable[[str], None] = lambda _: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_ring = on_ring
        self._listeners: dict[Listener, str | None] = {}
        self._changed: set[str] = set()
        self._next_s = 0.0
        self._is_telling = False
        self.is_closed = False

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    def check_room(self) -> None:
        """Make sure that there may be one stream more.

        Raises:
            TooManyStreamsError: there are as many as a server has at most.
        """
        if len(self._listeners) >= MOST_STREAMS:
            problem = f"{MOST_STREAMS:,} streams are open, and a server has no more"
            raise TooManyStreamsError(f"{problem}: close some, or try again later")

    @contextmanager
    def listen(self, job_id: str | None = None) -> Iterator[Listener]:
        """Listen for changes of one job, or of all."""
        listener = Listener()
        self._listeners[listener] = job_id
        try:
            yield listener
        finally:
            del self._listeners[listener]

    def ring(self, job_id: str) -> None:
        """Wake the streams that listen for this job."""
        self._loop.call_soon_threadsafe(self._ring, job_id)

    def close(self) -> None:
        """End every stream, because the server stops."""
        self.is_closed = True
        for listener in self._listeners:
            listener.wake()

    def _ring(self, job_id: str) -> None:
        self._on_ring(job_id)
        self._changed.add(job_id)
        if not self._is_telling:
            self._is_telling = True
            self._loop.call_at(self._next_s, self._tell)

    def _tell(self) -> None:
        changed, self._changed = self._changed, set()
        meant = [each for each, wanted in self._listeners.items() if wanted is None or wanted in changed]
        self._wake(changed, meant, self._loop.time())

    def _wake(self, changed: set[str], listeners: Sequence[Listener], begun_s: float) -> None:
        for listener in listeners[:_TOGETHER]:
            wanted = self._listeners.get(listener)
            listener.hear(changed if wanted is None else {wanted})
        if listeners[_TOGETHER:]:
            self._loop.call_soon(self._wake, changed, listeners[_TOGETHER:], begun_s)
            return
        now_s = self._loop.time()
        self._next_s = now_s + max(_PAUSE_S, _PAUSE_FOR_EACH_S * (now_s - begun_s))
        self._is_telling = bool(self._changed)
        if self._changed:
            self._loop.call_at(self._next_s, self._tell)
