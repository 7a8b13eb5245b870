import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.serving import TINY, Served, run_records


def _deeds(served: Served, **query: str | int) -> list[dict[str, Any]]:
    deeds: list[dict[str, Any]] = served.http.get("/v1/audit", params=query).json()["deeds"]
    return deeds


def test_who_changed_what_is_written_down_with_its_outcome(
    served: Served, as_role: Callable[[str], httpx.Client]
) -> None:
    operator, reader = as_role("operator"), as_role("reader")
    job_id = operator.post("/v1/jobs", json=TINY).json()["id"]
    reader.post(f"/v1/jobs/{job_id}/cancel")
    operator.post("/v1/jobs", json={"name": "bad"})
    served.http.post(f"/v1/jobs/{job_id}/cancel")
    told = [(each["caller"], each["action"], each["job_id"], each["status"]) for each in _deeds(served)]
    assert told == [
        ("admin", f"POST /v1/jobs/{job_id}/cancel", job_id, 200),
        ("the-operator", "POST /v1/jobs", None, 422),
        ("the-reader", f"POST /v1/jobs/{job_id}/cancel", job_id, 403),
        ("the-operator", "POST /v1/jobs", job_id, 201),
        ("admin", "POST /v1/tokens", None, 201),
        ("admin", "POST /v1/tokens", None, 201),
    ]
    assert len(_deeds(served, job_id=job_id)) == 3


def test_log_in_and_log_out_are_written_down(served: Served, stranger: httpx.Client) -> None:
    stranger.get("/", params={"token": served.token})
    stranger.post("/logout")
    stranger.post("/login", data={"token": served.token})
    stranger.post("/login", data={"token": "wrong"})
    assert [each["action"] for each in _deeds(served)] == ["POST /login", "POST /logout", "GET /"]


def test_reading_pushing_and_strangers_leave_nothing_in_the_audit_log(served: Served, stranger: httpx.Client) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(2))
    served.job(job_id)
    stranger.post(f"/v1/jobs/{job_id}/cancel")
    assert [each["action"] for each in _deeds(served)] == ["POST /v1/jobs"]


def test_the_audit_log_is_read_in_pages(served: Served) -> None:
    for _ in range(3):
        served.submit()
    first = served.http.get("/v1/audit?limit=2").json()
    rest = served.http.get(f"/v1/audit?limit=2&before={first['next_before']}").json()
    assert [len(first["deeds"]), len(rest["deeds"]), rest["next_before"]] == [2, 1, None]


def test_no_token_is_written_into_the_audit_log(served: Served, stranger: httpx.Client) -> None:
    stranger.get("/", params={"token": served.token})
    made = served.http.post("/v1/tokens", json={"owner": "ada", "role": "reader"}).json()["token"]
    text = served.http.get("/v1/audit").text
    assert served.token not in text
    assert made not in text


def test_a_deed_that_cannot_be_written_down_is_told_in_the_log_of_the_server(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = served.submit()["id"]
    with sqlite3.connect(served.settings.database) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END")
    db.close()
    with caplog.at_level(logging.WARNING):
        assert served.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    assert f"lacks that admin (admin) sent 'POST /v1/jobs/{job_id}/cancel', answered 200" in caplog.text
