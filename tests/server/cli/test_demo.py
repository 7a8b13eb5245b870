import json
import os
import subprocess
from pathlib import Path

import pytest

from server.cli.demo import DemoError, check, server_command
from server.settings import Settings
from tests.server.cli.command import run_bigbatch
from tests.serving import Served, free_port
from workers.contract.files import write_private


def test_the_demo_serves_from_a_folder_that_has_a_package_of_the_same_name(foreign_folder: Path) -> None:
    command = [*server_command(Settings(foreign_folder / "home")), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=foreign_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: bigbatch serve" in done.stdout


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
