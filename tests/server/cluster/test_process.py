import json
import os
from pathlib import Path

import psutil
import pytest

from server.cluster.identity import start_of
from server.cluster.process import ClusterProcess


def _remember(folder: Path, **state: object) -> ClusterProcess:
    (folder / "cluster.json").write_text(json.dumps({"dashboard_port": 1, "agent_port": 2} | state))
    return ClusterProcess(folder)


def test_a_running_cluster_is_found_again_after_the_clock_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = psutil.boot_time()
    process = _remember(tmp_path, pid=os.getpid(), started=start_of(os.getpid()))
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 1)
    found = process.find()
    assert found is not None
    assert found.pid == os.getpid()


def test_the_state_of_another_process_with_the_same_number_is_not_taken_for_ours(tmp_path: Path) -> None:
    assert _remember(tmp_path, pid=os.getpid(), started="another boot:1").find() is None


def test_a_state_that_another_version_wrote_is_no_cluster(tmp_path: Path) -> None:
    assert _remember(tmp_path, pid=os.getpid(), create_time=1.0).find() is None


def test_a_state_to_which_a_later_version_has_added_something_is_read(tmp_path: Path) -> None:
    process = _remember(tmp_path, pid=os.getpid(), started=start_of(os.getpid()), number_of_nodes=3)
    assert process.find() is not None


def test_two_homes_have_two_temporary_folders_and_two_tokens(tmp_path: Path) -> None:
    first, second = ClusterProcess(tmp_path / "first"), ClusterProcess(tmp_path / "second")
    assert first.temp_dir != second.temp_dir
    assert first.token != second.token
    assert ClusterProcess(tmp_path / "first").token == first.token


def test_a_home_without_a_cluster_has_no_processes_and_no_log(tmp_path: Path) -> None:
    process = ClusterProcess(tmp_path)
    assert process.find() is None
    assert process.processes() == []
    assert process.log_tail() == ""
    process.stop()  # there is nothing to end
