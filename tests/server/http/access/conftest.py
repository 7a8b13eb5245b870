"""Clients of a server that show what they are told to show."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.serving import Served


@pytest.fixture
def stranger(served: Served) -> Iterator[httpx.Client]:
    """A client of the same server that shows nothing."""
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        yield client


@pytest.fixture
def as_role(served: Served) -> Iterator[Callable[[str], httpx.Client]]:
    """Returns a client with a new token of a role, whose owner is called after it."""
    with ExitStack() as clients:

        def client(role: str) -> httpx.Client:
            made = served.http.post("/v1/tokens", json={"owner": f"the-{role}", "role": role})
            headers = {"Authorization": f"Bearer {made.json()['token']}"}
            return clients.enter_context(httpx.Client(base_url=served.url, headers=headers, trust_env=False))

        yield client
