import json
from pathlib import Path

from tests.server.cli.command import run_bigbatch
from tests.serving import Served, serving


def test_a_home_is_backed_up_and_restored_by_two_commands(tmp_path: Path) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "backup.tar"
    with serving(old) as served:
        job_id = served.submit()["id"]
        done = run_bigbatch("backup", file, "--home", old, "--json")
    assert (done.exit_code, json.loads(done.stdout)["runs"]) == (0, 1)
    done = run_bigbatch("restore", file, "--home", new)
    assert (done.exit_code, done.stdout) == (0, f"restored: {file}, home: {new}, runs: 1\n")
    with serving(new) as served:
        assert served.job(job_id)["status"] == "QUEUED"


def test_a_home_that_is_in_use_is_refused_in_one_line(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    assert run_bigbatch("backup", file, "--home", served.settings.home).exit_code == 0
    refused = run_bigbatch("restore", file, "--home", served.settings.home)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"bigbatch: {served.settings.database} is there already: move it away")


def test_a_folder_that_cannot_be_written_is_named(served: Served, tmp_path: Path) -> None:
    refused = run_bigbatch("backup", tmp_path / "nowhere" / "backup.tar", "--home", served.settings.home)
    assert refused.exit_code == 2
    assert f"{tmp_path}/nowhere" in refused.stderr
