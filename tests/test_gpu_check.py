"""What scripts/gpu-check runs, and what it says where there is nothing to check on."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "scripts" / "gpu-check"


def test_without_a_gpu_it_says_so_and_exits_with_2() -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False, env=hidden)
    assert (done.returncode, done.stdout) == (2, "")
    assert "gpu-check: nothing was checked. torch" in done.stderr
    assert "finds no GPU: run this where nvidia-smi shows one" in done.stderr


def test_it_runs_the_tests_of_the_cuda_kernels_and_those_that_only_a_gpu_can_run() -> None:
    named = [Path(each) for each in runpy.run_path(str(PROGRAM))["TEST"] if each.endswith(".py")]
    assert {"test_launch.py", "test_streaming.py", "test_totals.py", "gpu_capture.py"} <= {file.name for file in named}
    for file in named:
        if file.name.startswith("gpu_"):  # no other test would find that one of these cannot be imported
            module = importlib.import_module(".".join(file.relative_to(PROGRAM.parents[1]).with_suffix("").parts))
            assert [name for name in dir(module) if name.startswith("test_")]
