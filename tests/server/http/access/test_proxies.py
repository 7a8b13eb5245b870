"""What a client says in the headers of proxies is believed only where its address is that of a proxy that is named."""

from pathlib import Path

import httpx
import pytest

from server.http.access import rates
from tests.serving import Served, serving

FORWARDED = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Forwarded-Proto": "https"}


def _log_in(server: Served) -> str:
    """Log in with the headers of a proxy; return the cookie."""
    answer = httpx.get(f"{server.url}/?token={server.token}", headers=FORWARDED, trust_env=False)
    assert answer.status_code == 303
    return answer.headers["Set-Cookie"]


def _address_in_log(server: Served, caplog: pytest.LogCaptureFixture) -> str:
    """Send a wrong token; return the address that the log has it from."""
    caplog.clear()
    httpx.get(f"{server.url}/?token=wrong", headers=FORWARDED, trust_env=False)
    (said,) = [record.getMessage() for record in caplog.records if "wrong token" in record.getMessage()]
    return said.removeprefix("somebody at ").partition(" ")[0]


@pytest.mark.parametrize("named", [(), ("192.0.2.1", "10.0.0.0/8")])
def test_a_client_that_is_no_named_proxy_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own setting is not ours
    with serving(tmp_path, trusted_proxies=named) as server:
        assert "Secure" not in _log_in(server)
        assert _address_in_log(server, caplog) == "127.0.0.1"


def test_of_a_named_proxy_the_last_address_that_no_named_proxy_has_is_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path, trusted_proxies=("127.0.0.0/8",)) as server:
        assert _log_in(server).endswith("; Secure")
        assert _address_in_log(server, caplog) == "198.51.100.7"
        assert [deed["address"] for deed in server.http.get("/v1/audit").json()["deeds"]] == ["198.51.100.7"]
    with serving(tmp_path, trusted_proxies=("127.0.0.1", "198.51.100.7")) as server:
        assert _address_in_log(server, caplog) == "203.0.113.9"


def test_strangers_behind_a_named_proxy_are_counted_one_by_one_and_others_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "AT_ONCE", 2.0)
    monkeypatch.setattr(rates, "PER_SECOND", 0.001)

    def answers(server: Served) -> list[int]:
        headers = [{"X-Forwarded-For": f"203.0.113.{last}"} for last in (1, 1, 1, 2)]
        return [httpx.get(f"{server.url}/v1/jobs", headers=each, trust_env=False).status_code for each in headers]

    with serving(tmp_path / "named", trusted_proxies=("127.0.0.1",)) as server:
        assert answers(server) == [401, 401, 429, 401]
    with serving(tmp_path / "none") as server:
        assert answers(server) == [401, 401, 429, 429]


def test_a_page_that_is_taken_for_a_foreign_one_because_a_proxy_is_not_named_says_so(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as browser:
        browser.get("/", params={"token": served.token})
        own = {"Origin": f"https://127.0.0.1:{served.settings.port}"}  # as it is where the proxy speaks TLS
        answers = [
            browser.post("/login", data={"token": served.token}, headers=own),
            browser.post("/logout", headers=own),
        ]
    assert [answer.status_code for answer in answers] == [403, 401]
    assert all("--trusted-proxy" in answer.json()["detail"] for answer in answers)
