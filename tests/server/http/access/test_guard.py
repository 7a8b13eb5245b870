import json
import stat
from collections.abc import Callable

import httpx
import pytest

from tests.serving import TINY, Served, run_records

AsRole = Callable[[str], httpx.Client]


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _job_token(served: Served, job_id: str) -> str:
    token: str = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())["token"]
    return token


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs", "/v1/nothing", "/v1/jobs/x/events", "/v1/tokens", "/docs", "/openapi.json", "/elsewhere", "/login"],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic wrong"}])
def test_without_the_token_nothing_is_told(stranger: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = stranger.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:bigbatch:problem:unauthorized"


@pytest.mark.parametrize("token", ["", "ü", "a b", "-"])
def test_a_token_that_can_be_none_opens_nothing(stranger: httpx.Client, token: str) -> None:
    for scheme in ("Bearer", "bearer "):
        headers = {b"Authorization": f"{scheme} {token}".strip().encode()}
        assert stranger.get("/v1/jobs", headers=headers).status_code == 401


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


@pytest.mark.parametrize(("role", "reads"), [("admin", 200), ("operator", 200), ("reader", 200)])
def test_every_role_reads_jobs(served: Served, as_role: AsRole, role: str, reads: int) -> None:
    job_id, client = served.submit()["id"], as_role(role)
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/metrics", "/docs", "/", "/openapi.json"):
        assert client.get(path).status_code == reads


@pytest.mark.parametrize(("role", "submits"), [("admin", 201), ("operator", 201), ("reader", 403)])
def test_a_reader_changes_nothing(served: Served, as_role: AsRole, role: str, submits: int) -> None:
    job_id, client = served.submit()["id"], as_role(role)
    answers = [client.post("/v1/jobs", json=TINY), client.post(f"/v1/jobs/{job_id}/clone", json={})]
    assert [answer.status_code for answer in answers] == [submits] * 2
    cancelled = client.post(f"/v1/jobs/{job_id}/cancel")
    assert cancelled.status_code == (403 if role == "reader" else 200)
    assert served.job(job_id)["status"] == ("QUEUED" if role == "reader" else "CANCELLED")
    if role == "reader":
        problem = cancelled.json()
        assert problem["type"] == "urn:bigbatch:problem:forbidden"
        assert "needs a token with the role operator, and that of the-reader has the role reader" in problem["detail"]


@pytest.mark.parametrize(("role", "status"), [("admin", 200), ("operator", 403), ("reader", 403)])
def test_tokens_and_the_audit_log_are_for_admins(as_role: AsRole, role: str, status: int) -> None:
    client = as_role(role)
    assert [client.get(path).status_code for path in ("/v1/tokens", "/v1/audit")] == [status] * 2
    made = client.post("/v1/tokens", json={"owner": "ada", "role": "admin"})
    assert made.status_code == (201 if role == "admin" else 403)
    assert client.delete("/v1/tokens/none").status_code == (404 if role == "admin" else 403)


def test_a_jobs_token_is_good_for_its_own_records_and_for_nothing_else(served: Served, stranger: httpx.Client) -> None:
    mine, other = served.submit()["id"], served.submit()["id"]
    records, token = {"records": run_records(2)}, _bearer(_job_token(served, mine))
    assert stranger.post(f"/v1/jobs/{other}/events", json=records, headers=token).status_code == 401
    assert stranger.post("/v1/jobs/none/events", json=records, headers=token).status_code == 401
    assert stranger.get(f"/v1/jobs/{mine}/events", headers=token).status_code == 401
    assert stranger.post(f"/v1/jobs/{mine}/cancel", headers=token).status_code == 401
    assert stranger.post(f"/v1/jobs/{mine}/events", json=records, headers=token).status_code == 200
    assert served.job(other)["status"] == "QUEUED"


@pytest.mark.parametrize("role", ["admin", "operator", "reader"])
def test_nobody_but_the_run_pushes_its_records(served: Served, as_role: AsRole, role: str) -> None:
    path = f"/v1/jobs/{served.submit()['id']}/events"
    assert as_role(role).post(path, json={"records": run_records(2)}).status_code == 401


def test_the_token_of_a_job_is_not_stored_in_the_database(served: Served) -> None:
    token = _job_token(served, served.submit()["id"])
    stored = b"".join(path.read_bytes() for path in served.settings.home.glob("bigbatch.db*"))
    assert token.encode() not in stored
    assert served.token.encode() not in stored
