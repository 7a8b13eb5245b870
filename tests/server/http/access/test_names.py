import httpx
import pytest


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80@evil.example", "[::1", ""])
def test_a_name_that_somebody_made_point_here_is_refused(stranger: httpx.Client, host: str) -> None:
    answer = stranger.get("/healthz", headers={"Host": host})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert f"does not answer to the name {host!r}" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_this_machine_is_known_by_its_loopback_names(stranger: httpx.Client, host: str) -> None:
    assert stranger.get("/healthz", headers={"Host": host}).status_code == 200
