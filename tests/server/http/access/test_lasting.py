"""Streams that are open when what they were opened with ends."""

from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from server.http.access import lasting
from tests.serving import Served, run_records


def _revoke(served: Served, _: httpx.Client) -> None:
    (token,) = served.http.get("/v1/tokens").json()["tokens"]
    served.http.delete(f"/v1/tokens/{token['id']}").raise_for_status()


def _log_out(_: Served, browser: httpx.Client) -> None:
    assert browser.post("/logout").status_code == 303


@pytest.mark.parametrize("end", [_revoke, _log_out], ids=["its token is revoked", "its session is closed"])
def test_a_stream_sends_nothing_more_once_what_it_was_opened_with_has_ended(
    served: Served,
    stranger: httpx.Client,
    as_role: Callable[[str], httpx.Client],
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Served, httpx.Client], None],
) -> None:
    monkeypatch.setattr(lasting, "CHECK_S", 0.0)
    job_id, reader = served.submit()["id"], as_role("reader")
    stranger.post("/login", data={"token": reader.headers["Authorization"].removeprefix("Bearer ")})
    records = run_records(2)
    served.push(job_id, records[:2])
    with ExitStack() as streams:
        answers = [
            streams.enter_context(client.stream("GET", f"/v1/jobs/{job_id}/events", timeout=60))
            for client in (stranger, reader if end is _revoke else stranger)
        ]
        texts = [answer.iter_text() for answer in answers]
        begun = [next(text) for text in texts]
        end(served, stranger)
        served.push(job_id, records)
        rest = ["".join(text) for text in texts]
    assert all("event: tensors" in text for text in begun)
    assert not any("event: step" in text for text in rest)
    assert served.http.get(f"/v1/jobs/{job_id}/events").text.count("event: step") == 2
