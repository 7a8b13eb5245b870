"""scripts/gpu-check on a CPU, from end to end, what it runs on a GPU, and what it says where there is none."""

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "scripts" / "gpu-check"


def run(*options: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=hidden, cwd=cwd)


def test_without_a_gpu_it_says_so_and_exits_with_2() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "gpu-check: nothing was checked. torch" in done.stderr
    assert "finds no GPU: run this where nvidia-smi shows one" in done.stderr


def test_a_file_in_a_folder_that_is_not_there_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--json", "nowhere/found.json", cwd=tmp_path)
    assert done.returncode == 2
    assert f"there is no folder {tmp_path / 'nowhere'}; make it first" in done.stderr


@pytest.mark.timeout(600)
def test_on_a_cpu_it_walks_the_tests_of_shards_and_the_table(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--minutes", "9", "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["failed"], found["left_out"]) == ([], [])
    assert {(test["file"], test["outcome"], test["why"]) for test in found["tests"]} == {("gpu_shards", "passed", None)}
    assert {test["name"] for test in found["tests"]} == {
        *(f"test_parts_of_tensors_whose_sums_are_added_follow_the_oracle[{parts}]" for parts in (1, 2, 3)),
        "test_a_mesh_of_one_rank_that_is_taken_for_sharded_follows_the_oracle",
        "test_two_ranks_follow_the_oracle",
    }
    assert {row["name"] for row in found["optimizer"]["results"]} == {"torch AdamW fused", "bigbatch Lamb"}
    assert "### bert-tiny, 1 rank of 1 thread" in done.stdout
    assert f"{len(found['tests'])} passed" in done.stdout


def test_it_runs_the_tests_of_the_cuda_kernels_and_those_that_only_a_gpu_can_run() -> None:
    files = runpy.run_path(str(PROGRAM))["FILES"]["cuda"]
    named = {file.name for file in files}
    assert {"test_launch.py", "test_streaming.py", "test_totals.py", "test_whole.py"} <= named
    assert {"gpu_capture.py", "gpu_shards.py", "gpu_whole.py"} <= named
    for file in files:
        if file.name.startswith("gpu_"):  # no other test would find that one of these cannot be imported
            module = importlib.import_module(".".join(file.relative_to(PROGRAM.parents[1]).with_suffix("").parts))
            assert [name for name in dir(module) if name.startswith("test_")]
