import socket
from pathlib import Path

import pytest

from server.settings import Settings, default_home


def test_the_home_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGBATCH_HOME", "/srv/bigbatch")
    assert Settings().home == Path("/srv/bigbatch")
    monkeypatch.delenv("BIGBATCH_HOME")
    assert default_home() == Path.home() / ".bigbatch"


@pytest.mark.parametrize(
    ("host", "url", "is_loopback"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", True),
        ("0.0.0.0", "http://127.0.0.1:8000", False),  # noqa: S104
        ("::1", "http://[::1]:8000", True),
        ("192.0.2.7", "http://192.0.2.7:8000", False),
    ],
)
def test_runs_on_this_machine_are_told_an_address_that_they_reach(host: str, url: str, is_loopback: bool) -> None:
    settings = Settings(Path("/srv"), host=host)
    assert (settings.url, settings.is_loopback) == (url, is_loopback)


@pytest.mark.parametrize(
    ("host", "ray_address", "reached"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "http://localhost:8265", "127.0.0.1"),
        ("0.0.0.0", "http://127.0.0.1:8265", "127.0.0.1"),  # noqa: S104
        ("0.0.0.0", "http://head:8265", socket.gethostname()),  # noqa: S104
        ("192.0.2.7", "http://head:8265", "192.0.2.7"),
    ],
)
def test_runs_on_other_machines_are_told_the_name_of_this_one(host: str, ray_address: str | None, reached: str) -> None:
    settings = Settings(Path("/srv"), host=host, ray_address=ray_address)
    assert settings.url_for_runs == f"http://{reached}:8000"
