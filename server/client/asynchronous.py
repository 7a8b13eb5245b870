"""The same client for asyncio. Each call runs in a thread, so that there is one implementation of what is said."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from .client import Client
from .errors import UnreachableError
from .events import Event
from .results import Job

P = ParamSpec("P")
T = TypeVar("T")


def _in_a_thread(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(method, self.client, *args, **kwargs)

    return call


class AsyncClient:
    """A server, found as `Client` finds it; its methods are those of `Client`, to be awaited.

    Attributes:
        client: The client that does the work.
    """

    def __init__(self, home: Path | None = None, url: str | None = None, token: str | None = None) -> None:
        self.client = Client(home, url, token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()

    answers = _in_a_thread(Client.answers)
    submit = _in_a_thread(Client.submit)
    plan = _in_a_thread(Client.plan)
    clone = _in_a_thread(Client.clone)
    submit_sweep = _in_a_thread(Client.submit_sweep)
    sweeps = _in_a_thread(Client.sweeps)
    sweep = _in_a_thread(Client.sweep)
    job = _in_a_thread(Client.job)
    queue = _in_a_thread(Client.queue)
    pause = _in_a_thread(Client.pause)
    resume = _in_a_thread(Client.resume)
    checkpoint = _in_a_thread(Client.checkpoint)
    cancel = _in_a_thread(Client.cancel)
    retry = _in_a_thread(Client.retry)
    amend = _in_a_thread(Client.amend)
    delete = _in_a_thread(Client.delete)
    checkpoints = _in_a_thread(Client.checkpoints)
    delete_checkpoint = _in_a_thread(Client.delete_checkpoint)
    metrics = _in_a_thread(Client.metrics)
    tokens = _in_a_thread(Client.tokens)
    create_token = _in_a_thread(Client.create_token)
    revoke_token = _in_a_thread(Client.revoke_token)
    rotate_admin_token = _in_a_thread(Client.rotate_admin_token)
    audit = _in_a_thread(Client.audit)

    async def jobs(self, status: str | None = None, limit: int | None = None, **wanted: Any) -> AsyncIterator[Job]:
        """Yield jobs, as `Client.jobs` does."""
        found = self.client.jobs(status, limit, **wanted)
        while (job := await asyncio.to_thread(next, found, None)) is not None:
            yield job

    async def follow(
        self, job_id: str, on_lost: Callable[[UnreachableError], None] = lambda _: None
    ) -> AsyncIterator[Event]:
        """Yield a job's events from its first to its last, as `Client.follow` does."""
        events = self.client.follow(job_id, on_lost)
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event

    async def logs(self, prefix: str, **wanted: Any) -> AsyncIterator[str]:
        """Yield what a process of a job printed, line by line, as `Client.logs` does."""
        lines = self.client.logs(prefix, **wanted)
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            yield line
