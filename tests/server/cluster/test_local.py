import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from server.cluster import local, process
from server.cluster.identity import start_of
from server.cluster.local import LocalCluster
from server.errors import ClusterUnreachableError
from server.jobs.resources import Run
from tests.server.conftest import wait_until_ready

PYTHON = sys.executable


def _wait_for_end(cluster: LocalCluster, submission_id: str) -> None:
    deadline = time.monotonic() + 60
    while cluster.submission(submission_id).run is not Run.ENDED:
        assert time.monotonic() < deadline, cluster.submission(submission_id)
        time.sleep(0.1)


def test_a_cluster_has_the_processors_that_it_was_given(cluster: LocalCluster) -> None:
    [node] = cluster.nodes({})
    assert (node.total.cpus, node.free()) == (2, node.total)


def test_a_submitted_command_runs_in_its_folder_and_finds_this_cluster(cluster: LocalCluster, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit('a module of the folder was imported')")
    script = "import json, os; open('proof', 'w').write(os.environ['RAY_ADDRESS'])"
    cluster.submit("first-a1", [PYTHON, "-c", script], folder)
    _wait_for_end(cluster, "first-a1")
    assert (folder / "proof").read_text().startswith("127.0.0.1:")


def test_the_same_submission_runs_once(cluster: LocalCluster, tmp_path: Path) -> None:
    command = [PYTHON, "-c", "open('runs', 'a').write('x')"]
    cluster.submit("once-a1", command, tmp_path)
    cluster.submit("once-a1", command, tmp_path)
    _wait_for_end(cluster, "once-a1")
    cluster.submit("once-a1", command, tmp_path)
    assert (tmp_path / "runs").read_text() == "x"


def test_a_submission_that_was_never_made_is_unknown(cluster: LocalCluster) -> None:
    assert cluster.submission("never-a1").run is Run.UNKNOWN


def test_a_killed_run_ends(cluster: LocalCluster, tmp_path: Path) -> None:
    script = "import time; open('begun', 'w').close(); time.sleep(600)"
    cluster.submit("long-a1", [PYTHON, "-c", script], tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert cluster.submission("long-a1").run is Run.RUNNING
    cluster.kill("long-a1")
    _wait_for_end(cluster, "long-a1")
    assert cluster.submission("long-a1").end == "it was stopped on the cluster."


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("import os; print('a line'); os.kill(os.getpid(), 9)", "its driver was killed by SIGKILL."),
        (
            "import sys; print('a line'); sys.exit('no room')",
            "its driver ended with exit code 1. It printed last:\na line\nno room",
        ),
    ],
)
def test_a_run_that_ends_badly_says_how(cluster: LocalCluster, tmp_path: Path, script: str, end: str) -> None:
    name = f"bad-{script[-3]}"
    cluster.submit(name, [PYTHON, "-c", script], tmp_path)
    _wait_for_end(cluster, name)
    assert cluster.submission(name).end == end


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
        assert second.submission("left-a1").run in {Run.PENDING, Run.RUNNING}
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


def _raylet(cluster: LocalCluster) -> psutil.Process:
    [raylet] = [each for each in cluster.process.processes() if each.name() == "raylet"]
    return raylet


def _refusal(cluster: LocalCluster) -> str:
    with pytest.raises(ClusterUnreachableError) as refusal:
        cluster.ensure()
    return refusal.value.detail


def test_a_cluster_whose_only_node_has_ended_is_lost_though_its_head_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = LocalCluster(tmp_path / "ray", num_cpus=2)
    monkeypatch.setattr(local, "NO_NODE", timedelta())
    try:
        wait_until_ready(cluster)
        first = cluster.process.find()
        raylet = _raylet(cluster)
        raylet.terminate()  # `ray start` takes this for a shutdown and stays, unless another process of it ends as well
        raylet.wait(30)
        deadline = time.monotonic() + 30
        while "started again" not in (said := _refusal_or_nothing(cluster)):
            assert time.monotonic() < deadline
        assert "none of its nodes is alive" in said or "has ended by itself" in said
        _refusal(cluster)  # the new one is being started
        second = cluster.process.find()
        assert second is not None
        assert second != first
    finally:
        cluster.shutdown()
        cluster.close()


def _refusal_or_nothing(cluster: LocalCluster) -> str:
    """What the cluster is refused for; Ray misses a node a moment after its end."""
    try:
        cluster.ensure()
    except ClusterUnreachableError as error:
        return error.detail
    return ""


def test_a_cluster_that_somebody_has_stopped_is_waited_for_without_end(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SILENCE", timedelta())
    monkeypatch.setattr(local, "ANSWER_S", 0.5)
    state = cluster.process.find()
    assert state is not None
    impatient = LocalCluster(cluster.process.folder, num_cpus=2)
    family = psutil.Process(state.pid).children(recursive=True)
    stopped = [each for each in family if "ray-dashboard-StateHead" in " ".join(each.cmdline())]
    try:
        for process in stopped:
            process.suspend()
        said = _refusal(impatient)
    finally:
        for process in stopped:
            process.resume()
        impatient.close()
    assert f"processes of it are stopped: {stopped[0].pid};" in said
    assert cluster.process.find() == state
    wait_until_ready(cluster)


def test_a_cluster_that_falls_silent_is_not_ended_while_its_runs_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SILENCE", timedelta())
    cluster = LocalCluster(tmp_path)
    with subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as head:
        ports = {"dashboard_port": 9, "agent_port": 9, "was_ready": True}
        state = {"pid": head.pid, "started": start_of(head.pid)} | ports
        (tmp_path / "cluster.json").write_text(json.dumps(state))
        with pytest.raises(ClusterUnreachableError, match=r"not ready: .* does not answer"):
            cluster.ensure(runs_are_heard=True)
        assert cluster.process.find() is not None
        with pytest.raises(ClusterUnreachableError, match=r"is lost and is started again: .* does not answer"):
            cluster.ensure(runs_are_heard=False)
        assert cluster.process.find() is None
        head.kill()
    cluster.close()


@pytest.mark.parametrize("state", ['{"pid": 7, "create_time": 1.5}', "{", "[]"])
def test_a_cluster_whose_state_cannot_be_read_is_not_ended_for_its_runs_may_go_on(tmp_path: Path, state: str) -> None:
    (tmp_path / "cluster.json").write_text(state)
    cluster = LocalCluster(tmp_path)
    mark = os.environ | {"BIGBATCH_CLUSTER": str(tmp_path)}
    command = [PYTHON, "-c", "input()", "-m", "workers.launch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=mark) as run:
        assert re.search(rf"cluster\.json, .* cannot be read: .* with kill {run.pid}$", _refusal(cluster))
        assert run.poll() is None
        assert (tmp_path / "cluster.json").read_text() == state
        run.kill()
    cluster.close()


def test_a_cluster_that_ends_before_it_was_ready_says_why_and_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "sys", SimpleNamespace(executable=shutil.which("false")))
    cluster = LocalCluster(tmp_path)
    (tmp_path / "ray.log").write_text("")
    said = set[str]()
    deadline = time.monotonic() + 20
    while not any("ended before it was ready" in each for each in said):
        assert time.monotonic() < deadline, said
        said.add(_refusal(cluster))
    first = (tmp_path / "cluster.json").read_text()
    assert "ended before it was ready, and is tried again" in _refusal(cluster)
    assert (tmp_path / "cluster.json").read_text() == first
    monkeypatch.setattr(local, "AGAIN", timedelta())
    assert "is being started again" in _refusal(cluster)
    assert not psutil.pid_exists(json.loads(first)["pid"]), "a zombie is left"
    cluster.shutdown()
    cluster.close()


def test_a_cluster_that_was_not_started_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachableError, match="not running"):
        LocalCluster(tmp_path).submission("some-a1")
