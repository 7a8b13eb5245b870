"""Wakes the streams that wait for changes of jobs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Listener:
    """Which jobs have changed since one stream last asked."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._woken = asyncio.Event()

    def hear(self, job_id: str) -> None:
        """Remember a change and wake the stream."""
        self._changed.add(job_id)
        self._woken.set()

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
    """Passes changes of jobs from any thread to the streams on the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[Listener, str | None] = {}
        self.is_closed = False

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
        for listener, wanted in self._listeners.items():
            if wanted in {None, job_id}:
                listener.hear(job_id)
