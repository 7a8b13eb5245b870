from collections.abc import Callable

import httpx
import pytest

from tests.serving import TINY, Served


def test_a_link_with_the_token_lets_a_browser_in_and_hides_the_token(served: Served, stranger: httpx.Client) -> None:
    answer = stranger.get("/jobs/abc", params={"token": served.token})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/jobs/abc")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert stranger.get("/jobs/abc").status_code == 200
    assert stranger.get("/v1/jobs").status_code == 200


def test_the_cookie_is_a_session_of_this_browser_and_not_the_token(served: Served, stranger: httpx.Client) -> None:
    first = stranger.get("/", params={"token": served.token}).headers["Set-Cookie"]
    second = stranger.get("/", params={"token": served.token}).headers["Set-Cookie"]
    assert first.partition(";")[0] != second.partition(";")[0]
    assert served.token not in first + second
    session = first.partition(";")[0].partition("=")[2]
    assert httpx.get(f"{served.url}/v1/jobs", headers={"Authorization": f"Bearer {session}"}).status_code == 401


def test_a_link_with_a_wrong_token_asks_for_the_right_one(served: Served, stranger: httpx.Client) -> None:
    answer = stranger.get("/jobs/abc", params={"token": "wrong"})
    assert answer.status_code == 401
    assert 'action="/login"' in answer.text
    assert served.token not in answer.text
    wrong = stranger.post("/login", data={"token": "wrong", "next": "/jobs/abc"})
    assert (wrong.status_code, "Set-Cookie" in wrong.headers) == (401, False)
    assert all("is not a token of this server" in page.text for page in (answer, wrong))
    assert "is not a token" not in stranger.get("/jobs/abc").text
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


@pytest.mark.parametrize("origin", ["http://127.0.0.1:3000", "https://evil.example", "null"])
def test_another_page_can_log_a_browser_neither_in_nor_out(served: Served, stranger: httpx.Client, origin: str) -> None:
    headers = {"Origin": origin}
    assert stranger.post("/login", data={"token": served.token}, headers=headers).status_code == 403
    stranger.get("/", params={"token": served.token})
    assert stranger.post("/logout", headers=headers).status_code == 401
    assert stranger.get("/v1/jobs").status_code == 200


def test_whoever_logs_out_is_out_also_with_a_copy_of_the_cookie(served: Served, stranger: httpx.Client) -> None:
    stranger.get("/", params={"token": served.token})
    copy = dict(stranger.cookies)
    answer = stranger.post("/logout", headers={"Origin": served.url})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert dict(stranger.cookies) == {}
    with httpx.Client(base_url=served.url, cookies=copy, trust_env=False) as other:
        assert other.get("/v1/jobs").status_code == 401
        assert 'action="/login"' in other.get("/").text


def test_a_session_may_do_what_its_token_may(
    served: Served, stranger: httpx.Client, as_role: Callable[[str], httpx.Client]
) -> None:
    token = as_role("reader").headers["Authorization"].removeprefix("Bearer ")
    stranger.post("/login", data={"token": token})
    assert stranger.get("/v1/jobs").status_code == 200
    assert stranger.post("/v1/jobs", json=TINY, headers={"Origin": served.url}).status_code == 403
    assert stranger.post("/logout", headers={"Origin": served.url}).status_code == 303
