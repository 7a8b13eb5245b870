import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli.app import app
from server.cli.demo import server_command
from server.settings import Settings
from tests.serving import TINY, Served, free_port, run_records, status
from workers.contract.files import write_private

COMMANDS = ["serve", "submit", "train", "jobs", "show", "watch", "cancel", "demo", "doctor"]
DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="bigbatch")


def _bad_job(folder: Path) -> Path:
    path = folder / "bad.yaml"
    path.write_text("name: bad\nlearning_rate: 1\nphases: [{steps: many}]\n")
    return path


@pytest.fixture
def home(served: Served) -> list[str]:
    """The options that lead to a running server."""
    return ["--home", str(served.settings.home), "--url", served.url]


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("It is a truth universally acknowledged.\n")
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(TINY | {"data": {"corpus": ["text.txt"], "vocab": 100}}))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example_and_json(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: bigbatch {command}" in result.output
    assert "--json" in result.output


def test_the_version_is_that_of_the_package() -> None:
    assert _run("--version").output == "bigbatch 0.1.0\n"


def test_the_command_starts_without_torch_ray_and_the_web_framework() -> None:
    heavy = ("torch", "ray", "fastapi", "httpx", "sqlalchemy", "pydantic", "numpy")
    script = f"""
import atexit, sys
from importlib.metadata import entry_points
atexit.register(lambda: print([name for name in {heavy} if name in sys.modules], file=sys.stderr))
(command,) = entry_points(group="console_scripts", name="bigbatch")
sys.argv = ["bigbatch", "--help"]
command.load()()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage: bigbatch" in done.stdout
    assert done.stderr == "[]\n"


@pytest.fixture
def foreign_folder(tmp_path: Path) -> Path:
    """A folder with packages of the same names as ours and as those we need."""
    for name in ("server", "workers", "optim", "torch", "ray"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('imported the wrong {name}')\n")
    return tmp_path


def test_the_demo_serves_from_a_folder_that_has_a_package_of_the_same_name(foreign_folder: Path) -> None:
    command = [*server_command(Settings(foreign_folder / "home")), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=foreign_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: bigbatch serve" in done.stdout


def test_training_in_a_folder_with_packages_of_the_same_names_and_an_ascii_terminal(
    foreign_folder: Path, text: Path
) -> None:
    phase = {"seq_len": 16, "global_batch_size": 8, "micro_batch_size": 4, "steps": 1, "lr": 0.01}
    data = {"corpus": [str(text)], "vocab": 60}
    job = TINY | {"data": data, "phases": [phase], "parallel": {"workers": 2}}
    (foreign_folder / "job.yaml").write_text(json.dumps(job))
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "BIGBATCH_HOME": str(foreign_folder / "home")}
    command = [str(Path(sys.executable).with_name("bigbatch")), "train", "job.yaml", "--run", "run-é"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=foreign_folder, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "wrong" not in done.stdout + done.stderr
    assert "run-\\xe9/checkpoints" in done.stdout.replace("\n", "")


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
        env=os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )
    assert done.returncode == (1 if "watch" in arguments else 0), done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert done.stdout


@pytest.mark.parametrize("command", ["submit", "train", "demo"])
def test_a_bad_job_is_refused_field_by_field_before_anything_is_started(command: str, tmp_path: Path) -> None:
    result = _run(command, _bad_job(tmp_path))
    assert result.exit_code == 2
    assert "learning_rate = 1" in result.stderr
    assert "phases[0].steps = 'many'" in result.stderr
    assert "write a whole number" in result.stderr
    assert "Traceback" not in result.output


def test_warnings_go_to_standard_error_and_stand_in_the_json(home: list[str], job_file: Path) -> None:
    result = _run("submit", job_file, *home)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "bigbatch: warning\n  phases[0].global_batch_size = 8\n" in result.stderr
    (warning,) = json.loads(_run("submit", job_file, "--json", *home).stdout)["warnings"]
    assert warning["field"] == "phases[0].global_batch_size"


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


def test_doctor_finds_here_what_the_tests_need(tmp_path: Path) -> None:
    result = _run("doctor", "--json", "--home", tmp_path)
    assert result.exit_code == 0
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert {"Python", "torch", "CPU kernel", "Ray", "disk", "Chromium"} < set(findings)
    assert "CUDA" in findings["torch"]["found"]
    assert [one["what"] for one in findings.values() if one["mark"] == "missing"] == []


def test_a_submitted_job_stands_in_the_list(served: Served, home: list[str], job_file: Path) -> None:
    result = _run("submit", job_file, "--name", "mine", *home)
    assert result.exit_code == 0
    (job,) = served.http.get("/v1/jobs").json()["jobs"]
    assert result.stdout == f"{job['id']} is QUEUED: {served.url}/jobs/{job['id']}\n"
    assert "mine" in _run("jobs", *home).stdout
    assert json.loads(_run("jobs", "--json", "--status", "queued", *home).stdout) == [job]
    assert _run("jobs", "--status", "running", *home).stdout == "No job is RUNNING.\n"


def test_relative_paths_are_seen_from_the_folder_of_the_file(home: list[str], job_file: Path) -> None:
    job = json.loads(_run("submit", job_file, "--json", *home).stdout)
    assert job["spec"]["data"]["corpus"] == [str(job_file.parent / "text.txt")]


def test_what_the_server_refuses_is_told_like_what_we_refuse(home: list[str], job_file: Path) -> None:
    (job_file.parent / "text.txt").unlink()
    result = _run("submit", job_file, *home)
    assert result.exit_code == 2
    assert "data.corpus[0] = " in result.stderr
    assert "check the path" in result.stderr


def test_show_tells_the_state_and_the_link(served: Served, home: list[str]) -> None:
    job = served.submit()
    shown = _run("show", job["id"], *home)
    assert "QUEUED" in shown.stdout
    assert f"{served.url}/jobs/{job['id']}\n" in shown.stdout
    assert served.token not in shown.stdout
    assert json.loads(_run("show", job["id"], "--json", *home).stdout) == served.job(job["id"])


def test_an_unknown_status_or_id_is_bad_input(home: list[str]) -> None:
    assert _run("jobs", "--status", "odd", *home).exit_code == 2
    unknown = _run("show", "nothing", *home)
    assert unknown.exit_code == 2
    assert "bigbatch jobs" in unknown.stderr


def test_a_cancelled_job_ends_and_a_finished_one_cannot_be_cancelled(served: Served, home: list[str]) -> None:
    first, second = served.submit(), served.submit(name="second")
    assert _run("cancel", first["id"], *home).stdout == f"{first['id']} is CANCELLED\n"
    served.push(second["id"], run_records(2))
    refused = _run("cancel", second["id"], *home)
    assert refused.exit_code == 2
    assert "SUCCEEDED" in refused.stderr


def test_watch_ends_with_a_summary_and_says_by_its_exit_code_how_the_job_ended(served: Served, home: list[str]) -> None:
    job = served.submit()
    served.push(job["id"], run_records(20))
    watched = _run("watch", job["id"], *home)
    assert watched.exit_code == 0
    assert "SUCCEEDED after 20 of 20 steps" in watched.stdout
    assert "word frequency alone: 6.000" in watched.stdout
    failed = served.submit()
    served.push(failed["id"], [status(1, "RUNNING"), status(2, "FAILED", error="the loss is [not] finite")])
    watched = _run("watch", failed["id"], *home)
    assert watched.exit_code == 1
    assert "the loss is [not] finite" in watched.stdout


def test_watch_in_json_prints_every_record_as_a_line(served: Served, home: list[str]) -> None:
    job, records = served.submit(), run_records(3)
    served.push(job["id"], records)
    lines = [json.loads(line) for line in _run("watch", job["id"], "--json", *home).stdout.splitlines()]
    assert [line["seq"] for line in lines if "seq" in line] == [record["seq"] for record in records]
    assert lines[2]["loss"] == records[2]["loss"]


def test_the_demo_starts_nothing_where_the_port_is_taken(served: Served, tmp_path: Path) -> None:
    other_home = tmp_path / "other"
    result = _run("demo", "--home", other_home, "--port", str(served.settings.port))
    assert result.exit_code == 2
    assert f"port {served.settings.port}" in result.stderr
    assert f"make demo PORT={served.settings.port + 1}" in result.stderr
    assert not other_home.exists()


def test_the_demo_leaves_a_running_server_alone(served: Served) -> None:
    write_private(served.settings.server_file, json.dumps({"url": served.url, "pid": os.getpid()}))
    result = _run("demo", "--home", served.settings.home, "--port", str(free_port()))
    assert result.exit_code == 2
    assert f"is already running at {served.url}" in result.stderr
    assert served.http.get("/v1/jobs").json()["jobs"] == []
