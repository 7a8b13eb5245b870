import os
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from server.cluster.local import LocalCluster
from server.errors import ClusterUnreachableError
from server.jobs.resources import Run
from tests.server.conftest import wait_until_ready

PYTHON = sys.executable


def _wait_for_end(cluster: LocalCluster, submission_id: str) -> None:
    deadline = time.monotonic() + 60
    while cluster.run_of(submission_id) is not Run.ENDED:
        assert time.monotonic() < deadline, cluster.log_tail(submission_id)
        time.sleep(0.1)


def test_a_cluster_has_the_processors_that_it_was_given(cluster: LocalCluster) -> None:
    [node] = cluster.nodes([])
    assert (node.total.cpus, node.free()) == (2, node.total)


def test_a_submitted_command_runs_in_its_folder_and_its_log_can_be_read(cluster: LocalCluster, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit('a module of the folder was imported')")
    script = "import json, os; print('ran in', os.getcwd()); open('proof', 'w').write(os.environ['RAY_ADDRESS'])"
    cluster.submit("first-a1", [PYTHON, "-c", script], folder)
    _wait_for_end(cluster, "first-a1")
    assert f"ran in {folder}" in cluster.log_tail("first-a1")
    assert (folder / "proof").read_text().startswith("127.0.0.1:")


def test_the_same_submission_runs_once(cluster: LocalCluster, tmp_path: Path) -> None:
    command = [PYTHON, "-c", "open('runs', 'a').write('x')"]
    cluster.submit("once-a1", command, tmp_path)
    cluster.submit("once-a1", command, tmp_path)
    _wait_for_end(cluster, "once-a1")
    cluster.submit("once-a1", command, tmp_path)
    assert (tmp_path / "runs").read_text() == "x"


def test_a_submission_that_was_never_made_is_unknown(cluster: LocalCluster) -> None:
    assert cluster.run_of("never-a1") is Run.UNKNOWN
    assert cluster.log_tail("never-a1") == ""


def test_a_killed_run_ends(cluster: LocalCluster, tmp_path: Path) -> None:
    script = "import time; open('begun', 'w').close(); time.sleep(600)"
    cluster.submit("long-a1", [PYTHON, "-c", script], tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert cluster.run_of("long-a1") is Run.RUNNING
    cluster.kill("long-a1")
    _wait_for_end(cluster, "long-a1")


def test_the_cluster_leaves_the_environment_of_the_server_alone(cluster: LocalCluster) -> None:
    cluster.ensure()
    assert not [name for name in os.environ if name.startswith(("RAY_ADDRESS", "RAY_AUTH", "BIGBATCH_CLUSTER"))]


def test_nothing_of_the_cluster_listens_beyond_this_machine(cluster: LocalCluster) -> None:
    pids = {process.pid for process in cluster.process.processes()}
    sockets = [each for each in psutil.net_connections("inet") if each.pid in pids]  # Ray's processes come and go
    listening = {each.laddr.ip for each in sockets if each.laddr and each.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert listening


def test_a_cluster_is_found_again_and_ended_without_a_trace(cluster: LocalCluster, tmp_path: Path) -> None:
    first, second = LocalCluster(tmp_path / "ray", num_cpus=2), LocalCluster(tmp_path / "ray", num_cpus=2)
    try:
        with pytest.raises(ClusterUnreachableError):
            first.ensure()
        wait_until_ready(first)
        first.submit("left-a1", [PYTHON, "-c", "import time; time.sleep(600)"], tmp_path)
        first.close()

        second.ensure()  # it is ready at once, so nothing was started
        assert second.run_of("left-a1") in {Run.PENDING, Run.RUNNING}
        assert stat.S_IMODE(second.process.temp_dir.stat().st_mode) == 0o700
        state = second.process.find()
        assert state is not None
        tree = [psutil.Process(state.pid), *psutil.Process(state.pid).children(recursive=True)]
        assert {process.pid for process in tree} <= {process.pid for process in second.process.processes()}
    finally:
        second.shutdown()
        second.close()
    assert [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert second.process.processes() == []
    assert not second.process.temp_dir.exists()
    assert not (tmp_path / "ray" / "cluster.json").exists()
    cluster.ensure()  # the other cluster of this machine goes on


def test_a_cluster_that_was_not_started_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachableError, match="not running"):
        LocalCluster(tmp_path).run_of("some-a1")
