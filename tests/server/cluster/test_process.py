import os
from pathlib import Path

from server.cluster.process import ClusterProcess


def test_the_state_of_another_process_with_the_same_number_is_not_taken_for_ours(tmp_path: Path) -> None:
    me = os.getpid()
    state = f'{{"pid": {me}, "create_time": 1.0, "dashboard_port": 1, "agent_port": 2}}'
    (tmp_path / "cluster.json").write_text(state)
    assert ClusterProcess(tmp_path).find() is None


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
