import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli import app

COMMANDS = ["serve", "submit", "train", "jobs", "show", "watch", "cancel", "demo", "doctor"]
DEMO = Path(__file__).parent.parent.parent / "configs" / "demo.yaml"


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="bigbatch")


def _bad_job(folder: Path) -> Path:
    path = folder / "bad.yaml"
    path.write_text("name: bad\nlearning_rate: 1\nphases: [{steps: many}]\n")
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example_and_json(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: bigbatch {command}" in result.output
    assert "--json" in result.output


def test_the_version_is_that_of_the_package() -> None:
    assert _run("--version").output == "bigbatch 0.1.0\n"


def test_the_command_line_starts_without_torch_ray_and_the_web_framework() -> None:
    script = "import sys, server.cli; print([m for m in ('torch', 'ray', 'fastapi', 'httpx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", ["submit", "train", "demo"])
def test_a_bad_job_is_refused_field_by_field_before_anything_is_started(command: str, tmp_path: Path) -> None:
    result = _run(command, _bad_job(tmp_path))
    assert result.exit_code == 2
    assert "learning_rate = 1" in result.stderr
    assert "phases[0].steps = 'many'" in result.stderr
    assert "write a whole number" in result.stderr
    assert "Traceback" not in result.output


def test_a_bad_job_is_refused_in_json_where_json_was_asked_for(tmp_path: Path) -> None:
    result = _run("submit", _bad_job(tmp_path), "--json")
    assert result.stdout == ""
    errors = json.loads(result.stderr)["errors"]
    assert {"field": "phases[0].steps", "value": "'many'"}.items() <= errors[3].items()
    assert set(errors[0]) == {"field", "value", "problem", "remedy"}


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    result = _run("submit", tmp_path / "job.yaml")
    assert result.exit_code == 2
    assert "is not UTF-8 text" in result.stderr


@pytest.mark.parametrize("command", [["jobs"], ["show", "0f"], ["watch", "0f"], ["cancel", "0f"], ["submit", DEMO]])
def test_without_a_server_every_command_says_where_it_looked(command: list[str], tmp_path: Path) -> None:
    result = _run(*command, "--home", tmp_path, "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9" in result.stderr
    assert "bigbatch serve" in result.stderr


def test_doctor_answers_in_json(tmp_path: Path) -> None:
    result = _run("doctor", "--json", "--home", tmp_path)
    assert result.exit_code == 0
    assert {"mark", "what", "found", "remedy"} == set(json.loads(result.stdout)[0])
