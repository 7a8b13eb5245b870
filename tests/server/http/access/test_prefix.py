"""Below a root path, requests with it and without it are the same; what answers lead to has it."""

from collections.abc import Iterator

import httpx
import pytest

from server.client import Client
from tests.serving import TINY, Served, serving


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("below") / "home", root_path="team/bigbatch/") as server:
        yield server


def test_a_server_below_a_path_tells_and_finds_itself_there(below: Served) -> None:
    assert below.settings.root_path == "/team/bigbatch"
    assert below.url == f"http://127.0.0.1:{below.settings.port}/team/bigbatch"
    with Client(url=f"{below.url}/jobs/abc", token=below.token) as client:
        assert client.url == below.url
        assert client.answers("/healthz")


@pytest.mark.parametrize("path", ["", "/team/bigbatch"])
def test_a_request_with_the_path_and_one_without_it_are_the_same(below: Served, path: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{below.settings.port}{path}", trust_env=False) as client:
        assert [client.get(each).status_code for each in ("/healthz", "/static/pages/app.js", "/v1/jobs")] == [
            200,
            200,
            401,
        ]
        client.headers["Authorization"] = f"Bearer {below.token}"
        made = client.post("/v1/jobs", json=TINY)
        assert made.headers["Location"] == f"/team/bigbatch/v1/jobs/{made.json()['id']}"
        deeds = client.get("/v1/audit", params={"job_id": made.json()["id"]}).json()["deeds"]
        assert [deed["action"] for deed in deeds] == ["POST /v1/jobs"]


@pytest.mark.parametrize("path", ["/team/bigbatchery/healthz", "/team/healthz", "/team/bigbatch/team/bigbatch/healthz"])
def test_no_other_path_is_taken_for_it(below: Served, path: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{below.settings.port}{path}", trust_env=False)
    assert answer.status_code == 401


def test_two_slashes_of_a_proxy_that_removes_the_path_are_one(below: Served) -> None:
    answer = httpx.get(f"http://127.0.0.1:{below.settings.port}//healthz", trust_env=False)
    assert answer.json() == {"status": "ok"}


def test_the_path_alone_is_the_first_page(below: Served) -> None:
    page = httpx.get(below.url, headers={"Authorization": f"Bearer {below.token}"}, trust_env=False)
    assert 'src="/team/bigbatch/static/pages/app.js"' in page.text


def test_a_slash_too_many_is_not_redirected_to_an_address_that_a_proxy_may_not_have(below: Served) -> None:
    answer = below.http.get("/v1/jobs/")
    assert (answer.status_code, "Location" in answer.headers) == (404, False)
