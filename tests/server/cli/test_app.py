import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.cli.command import ASCII, run_bigbatch
from tests.serving import Served, free_port, status

COMMANDS = ["serve", "submit", "train", "jobs", "show", "watch", "cancel", "demo", "doctor"]
DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"


def _bad_job(folder: Path) -> Path:
    path = folder / "bad.yaml"
    path.write_text("name: bad\nlearning_rate: 1\nphases: [{steps: many}]\n")
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example_and_json(command: str) -> None:
    result = run_bigbatch(command, "--help")
    assert result.exit_code == 0
    assert f"Example: bigbatch {command}" in result.output
    assert "--json" in result.output


def test_the_version_is_that_of_the_package() -> None:
    assert run_bigbatch("--version").output == "bigbatch 0.1.0\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["submit", "--help"], ["doctor"], ["jobs"], ["show", "{id}"], ["watch", "{id}"]]
)
def test_a_terminal_that_knows_only_ascii_ends_no_command(
    served: Served, home: list[str], arguments: list[str]
) -> None:
    job_id = served.submit(labels={"où": "Zürich …"})["id"]
    served.push(job_id, [status(1, "RUNNING"), status(2, "FAILED", error="no room left in „/große Platte“")])
    script = str(Path(sys.executable).with_name("bigbatch"))
    options = [] if "--help" in arguments else ["--home", home[1]] if arguments == ["doctor"] else home
    done = subprocess.run(
        [script, *(each.format(id=job_id) for each in arguments), *options],
        capture_output=True,
        check=False,
        env=os.environ | ASCII,
    )
    assert done.returncode == (1 if "watch" in arguments else 0), done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert done.stdout


@pytest.mark.parametrize("command", ["submit", "train", "demo"])
def test_a_bad_job_is_refused_field_by_field_before_anything_is_started(command: str, tmp_path: Path) -> None:
    result = run_bigbatch(command, _bad_job(tmp_path))
    assert result.exit_code == 2
    assert "learning_rate = 1" in result.stderr
    assert "phases[0].steps = 'many'" in result.stderr
    assert "write a whole number" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [["jobs"], ["show", "0f"], ["watch", "0f"], ["cancel", "0f"], ["submit", DEMO]])
def test_without_a_server_every_command_says_where_it_looked(command: list[str], tmp_path: Path) -> None:
    result = run_bigbatch(*command, "--home", tmp_path, "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9" in result.stderr
    assert "bigbatch serve" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["jobs", "--status", "foo"], "Invalid value for '--status': 'foo' is not one of 'queued', 'starting',"),
        (["jobs", "--limit", "x"], "Invalid value for '--limit': 'x' is not a whole number; write a whole number"),
        (["jobs", "--limit", "0"], "Invalid value for '--limit': '0' is less than 1; write a value of at least 1"),
        (["serve", "--port", "70000"], "Invalid value for '--port': '70000' is more than 65535; write a value of at"),
    ],
)
def test_a_bad_option_is_refused_in_our_own_words(arguments: list[str], says: str) -> None:
    result = run_bigbatch(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", " ").split())
    assert "Value error" not in result.stderr


def test_ctrl_c_while_the_command_is_being_imported_ends_it_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "server", "serve", "--home", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.endswith(" starlette.requests\n"):  # on the way to FastAPI, long before the server listens
            process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130, "".join(said[-20:])
    assert "Traceback" not in "".join(said)


def test_a_file_that_cannot_be_written_is_told_of_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "server.log").mkdir()
    result = run_bigbatch("demo", "--home", tmp_path, "--port", str(free_port()))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"bigbatch: {tmp_path}/server.log: Is a directory: check the path")
