import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.cluster.processors import processors

HERE = len(os.sched_getaffinity(0))


def test_a_process_that_may_run_on_one_core_has_one() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from server.cluster.processors import processors; print(processors())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("quota", "period", "allowed"),
    [("100000", "100000", 1), ("50000", "100000", 1), ("max", "100000", HERE), ("99999999", "100000", HERE)],
)
def test_a_container_has_what_its_control_group_allows(tmp_path: Path, quota: str, period: str, allowed: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} {period}\n")
    assert processors(tmp_path) == allowed


@pytest.mark.parametrize(("quota", "allowed"), [("100000", 1), ("-1", HERE)])
def test_the_first_version_of_control_groups_is_understood_too(tmp_path: Path, quota: str, allowed: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert processors(tmp_path) == allowed


def test_a_system_without_control_groups_has_all_its_processors(tmp_path: Path) -> None:
    assert processors(tmp_path) == HERE
