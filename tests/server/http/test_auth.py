import json
import stat
from collections.abc import Iterator

import httpx
import pytest

from tests.serving import Served, run_records


@pytest.fixture
def stranger(served: Served) -> Iterator[httpx.Client]:
    """A client of the same server that shows nothing."""
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _job_token(served: Served, job_id: str) -> str:
    token: str = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())["token"]
    return token


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs", "/v1/nothing", "/v1/jobs/x/events", "/docs", "/openapi.json", "/elsewhere", "/login"],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic wrong"}])
def test_without_the_token_nothing_is_told(stranger: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = stranger.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:bigbatch:problem:unauthorized"


def test_a_wrong_token_is_told_from_a_missing_one(stranger: httpx.Client) -> None:
    missing, wrong = stranger.get("/v1/jobs"), stranger.get("/v1/jobs", headers=_bearer("wrong"))
    assert "this request has no token" in missing.json()["detail"]
    assert "the token of this request is wrong" in wrong.json()["detail"]


def test_a_wrong_token_is_answered_with_the_place_of_the_right_one(served: Served, stranger: httpx.Client) -> None:
    path = f"/v1/jobs/{served.submit()['id']}/events"
    assert "control.json" in stranger.post(path, headers=_bearer(served.token)).json()["detail"]
    assert "admin.token" in stranger.get(path, headers=_bearer("wrong")).json()["detail"]
    basic = stranger.get(path, headers={"Authorization": "Basic eDp5"}).json()["detail"]
    assert "this request has no bearer token" in basic


def test_health_is_told_to_everybody(stranger: httpx.Client) -> None:
    assert stranger.get("/healthz").json() == {"status": "ok"}


def test_the_admin_token_is_private_and_opens_everything(served: Served) -> None:
    assert stat.S_IMODE(served.settings.admin_token.stat().st_mode) == 0o600
    assert served.http.get("/v1/jobs").status_code == 200
    assert served.http.get("/docs").status_code == 200


def test_a_link_with_the_token_lets_a_browser_in_and_hides_the_token(served: Served, stranger: httpx.Client) -> None:
    answer = stranger.get("/jobs/abc", params={"token": served.token})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/jobs/abc")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert stranger.get("/jobs/abc").status_code == 200
    assert stranger.get("/v1/jobs").status_code == 200


def test_a_link_with_a_wrong_token_asks_for_the_right_one(served: Served, stranger: httpx.Client) -> None:
    answer = stranger.get("/jobs/abc", params={"token": "wrong"})
    assert answer.status_code == 401
    assert 'action="/login"' in answer.text
    assert served.token not in answer.text
    wrong = stranger.post("/login", data={"token": "wrong", "next": "/jobs/abc"})
    assert (wrong.status_code, "Set-Cookie" in wrong.headers) == (401, False)
    assert all("is not the token of this server" in page.text for page in (answer, wrong))
    assert "is not the token" not in stranger.get("/jobs/abc").text
    right = stranger.post("/login", data={"token": served.token, "next": "/jobs/abc"})
    assert (right.status_code, right.headers["Location"]) == (303, "/jobs/abc")
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/v1/jobs", ""])
def test_after_the_log_in_nobody_is_sent_elsewhere(served: Served, stranger: httpx.Client, target: str) -> None:
    answer = stranger.post("/login", data={"token": served.token, "next": target})
    assert answer.headers["Location"] == "/"


def test_what_a_path_says_is_not_run_in_the_log_in_page(stranger: httpx.Client) -> None:
    page = stranger.get('/jobs/"><script>alert(1)<%2Fscript>').text
    assert "<script" not in page


def test_a_cookie_sent_by_a_page_of_another_port_opens_nothing(served: Served, stranger: httpx.Client) -> None:
    stranger.get("/", params={"token": served.token})
    job_id = served.submit()["id"]
    foreign = stranger.post(f"/v1/jobs/{job_id}/cancel", headers={"Origin": "http://127.0.0.1:3000"})
    own = stranger.post(f"/v1/jobs/{job_id}/cancel", headers={"Origin": served.url})
    assert (foreign.status_code, own.status_code) == (401, 200)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80@evil.example", "[::1", ""])
def test_a_name_that_somebody_made_point_here_is_refused(stranger: httpx.Client, host: str) -> None:
    answer = stranger.get("/healthz", headers={"Host": host})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert f"does not answer to the name {host!r}" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_this_machine_is_known_by_its_loopback_names(stranger: httpx.Client, host: str) -> None:
    assert stranger.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_jobs_token_is_good_for_its_own_records_and_for_nothing_else(served: Served, stranger: httpx.Client) -> None:
    mine, other = served.submit()["id"], served.submit()["id"]
    records, token = {"records": run_records(2)}, _bearer(_job_token(served, mine))
    assert stranger.post(f"/v1/jobs/{other}/events", json=records, headers=token).status_code == 401
    assert stranger.post("/v1/jobs/none/events", json=records, headers=token).status_code == 401
    assert stranger.get(f"/v1/jobs/{mine}/events", headers=token).status_code == 401
    assert stranger.post(f"/v1/jobs/{mine}/cancel", headers=token).status_code == 401
    assert stranger.post(f"/v1/jobs/{mine}/events", json=records, headers=token).status_code == 200
    assert served.job(other)["status"] == "QUEUED"


def test_the_token_of_a_job_is_not_stored_in_the_database(served: Served) -> None:
    token = _job_token(served, served.submit()["id"])
    stored = b"".join(path.read_bytes() for path in served.settings.home.glob("bigbatch.db*"))
    assert token.encode() not in stored
    assert served.token.encode() not in stored
