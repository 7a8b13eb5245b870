import httpx
import pytest

from server.errors import TooManyRequestsError
from server.http.access import rates
from server.http.access.rates import Rates
from tests.serving import Served


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(counter: Rates, caller: str) -> int:
    """How many requests a caller can send at this moment."""
    for sent in range(10_000):
        try:
            counter.count(caller)
        except TooManyRequestsError:
            return sent
    raise AssertionError("there is no limit")


def test_a_caller_has_a_store_of_requests_that_fills_up_again_and_others_have_their_own() -> None:
    clock = Clock()
    counter = Rates(clock)
    assert (taken(counter, "ada"), taken(counter, "ada")) == (1000, 0)
    clock.now = 2.0
    assert (taken(counter, "ada"), taken(counter, "bob")) == (200, 1000)
    clock.now = 1e6
    assert taken(counter, "ada") == 1000


def test_callers_who_come_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_MOST_CALLERS", 10)
    clock = Clock()
    counter = Rates(clock)
    for number in range(1000):
        clock.now += 1
        counter.count(f"caller {number}")
    assert len(counter._left) <= 10


def test_too_many_requests_are_refused_with_a_remedy_and_others_are_served(
    served: Served, stranger: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "AT_ONCE", 3.0)
    monkeypatch.setattr(rates, "PER_SECOND", 0.001)
    answers = [stranger.get("/v1/jobs") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert answers[-1].json()["type"] == "urn:bigbatch:problem:too-many-requests"
    assert answers[-1].headers["Retry-After"] == "1"
    assert [served.http.get("/v1/jobs").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert stranger.get("/healthz").status_code == 200
