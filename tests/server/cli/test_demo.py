import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from server.cli.demo import DemoError, check, load_command, server_command
from server.settings import Settings
from tests.certificates import make_certificate
from tests.server.cli.command import run_bigbatch
from tests.serving import Served, free_port
from workers.checkpoints.export import main as export
from workers.contract.files import write_private


def test_the_demo_serves_from_a_folder_that_has_a_package_of_the_same_name(foreign_folder: Path) -> None:
    command = [*server_command(Settings(foreign_folder / "home")), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=foreign_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: bigbatch serve" in done.stdout


def test_the_demo_serves_with_the_certificate_that_it_is_given(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path)
    _, key = make_certificate(tmp_path, "other")
    settings = Settings(tmp_path / "home", host="0.0.0.0", tls_cert=certificate, tls_key=key)  # noqa: S104 -- refused
    done = subprocess.run(server_command(settings), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{certificate} and {key} cannot be used for TLS" in done.stderr


def test_the_demo_starts_nothing_where_the_port_is_taken(served: Served, tmp_path: Path) -> None:
    other_home = tmp_path / "other"
    result = run_bigbatch("demo", "--home", other_home, "--port", str(served.settings.port))
    assert result.exit_code == 2
    assert f"port {served.settings.port}" in result.stderr
    assert f"make demo PORT={served.settings.port + 1}" in result.stderr
    assert not other_home.exists()


def test_the_demo_leaves_a_running_server_alone(served: Served) -> None:
    write_private(served.settings.server_file, json.dumps({"url": served.url, "pid": os.getpid()}))
    result = run_bigbatch("demo", "--home", served.settings.home, "--port", str(free_port()))
    assert result.exit_code == 2
    assert f"is already running at {served.url}" in result.stderr
    assert served.http.get("/v1/jobs").json()["jobs"] == []


def test_a_home_that_cannot_be_made_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoError, match=r"cannot be written \(Not a directory\); choose another folder"):
        check(Settings(tmp_path / "file" / "home", port=free_port()))


def test_the_last_line_of_the_demo_fills_in_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, kept = tmp_path / "a home" / "export", Path(__file__).parents[2] / "data" / "run_folders" / "format-1"
    assert export([str(kept), str(model), "--data", str(tmp_path / "data")]) == 0
    python, option, program = shlex.split(load_command(model))
    assert (python, option) == (sys.executable, "-c")
    capfd.readouterr()
    exec(program, {})  # noqa: S102 -- importing transformers once more would take ten seconds
    assert capfd.readouterr().out.count(" to see him.") == 5
