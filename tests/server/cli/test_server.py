import json
from pathlib import Path

from tests.server.cli.command import run_bigbatch


def test_doctor_finds_here_what_the_tests_need(tmp_path: Path) -> None:
    result = run_bigbatch("doctor", "--json", "--home", tmp_path)
    assert result.exit_code == 0
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert {"Python", "torch", "CPU kernel", "Ray", "disk", "Chromium"} < set(findings)
    assert "CUDA" in findings["torch"]["found"]
    assert [one["what"] for one in findings.values() if one["mark"] == "missing"] == []
