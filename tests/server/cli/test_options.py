"""The options that several commands share."""

import json
from pathlib import Path

import pytest

from tests.server.cli.command import run_bigbatch
from tests.serving import Served


def test_the_environment_names_home_address_and_token_where_no_option_does(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = served.submit()
    monkeypatch.setenv("BIGBATCH_URL", served.url)
    monkeypatch.setenv("BIGBATCH_HOME", str(served.settings.home))
    assert [each["id"] for each in json.loads(run_bigbatch("jobs", "--json").stdout)] == [job["id"]]
    monkeypatch.setenv("BIGBATCH_HOME", str(tmp_path / "nowhere"))
    assert run_bigbatch("jobs", "--json").exit_code == 2
    monkeypatch.setenv("BIGBATCH_TOKEN", served.token)
    assert [each["id"] for each in json.loads(run_bigbatch("jobs", "--json").stdout)] == [job["id"]]
    refused = run_bigbatch("jobs", "--json", "--token", "wrong")
    assert (refused.exit_code, json.loads(refused.stderr)["status"]) == (2, 401)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_nothing_can_listen_on_is_refused(port: str) -> None:
    result = run_bigbatch("serve", "--port", port)
    assert (result.exit_code, "Invalid value for '--port'" in result.stderr) == (2, True)


def test_a_job_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run_bigbatch("submit", tmp_path / "job.yaml")
    said = " ".join(result.stderr.replace("│", " ").split())  # a long path breaks the line anywhere
    assert (result.exit_code, "does not exist" in said) == (2, True)
