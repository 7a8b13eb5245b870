import json
from pathlib import Path

import pytest

from tests.server.cli.command import run_bigbatch


def test_doctor_finds_here_what_the_tests_need(tmp_path: Path) -> None:
    result = run_bigbatch("doctor", "--json", "--home", tmp_path)
    assert result.exit_code == 0
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert {"Python", "torch", "CPU kernel", "Ray", "disk", "Chromium"} < set(findings)
    assert "CUDA" in findings["torch"]["found"]
    assert [one["what"] for one in findings.values() if one["mark"] == "missing"] == []


@pytest.mark.parametrize("address", ["auto", "head:6379", "ray://head:10001", "http://"])
def test_serve_refuses_an_address_that_jobs_cannot_be_submitted_to(address: str, tmp_path: Path) -> None:
    result = run_bigbatch("serve", "--home", tmp_path / "home", "--ray-address", address)
    assert result.exit_code == 2
    assert f"--ray-address '{address}' is not a URL" in result.stderr
    assert "--ray-address http://head:8265" in result.stderr
    assert not (tmp_path / "home").exists()


def test_serve_refuses_to_hide_from_the_nodes_of_a_cluster_that_are_to_report_to_it(tmp_path: Path) -> None:
    result = run_bigbatch("serve", "--home", tmp_path / "home", "--ray-address", "http://head.example:8265")
    assert result.exit_code == 2
    assert "the runs on head.example could not report to 127.0.0.1" in result.stderr
    assert "--host" in result.stderr


def test_serve_refuses_a_data_root_that_is_not_there(tmp_path: Path) -> None:
    result = run_bigbatch("serve", "--home", tmp_path / "home", "--data-root", tmp_path / "texts")
    assert result.exit_code == 2
    assert "--data-root" in result.stderr
    assert "does not" in result.stderr
