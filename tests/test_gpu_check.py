"""What scripts/gpu-check says where there is nothing to check on."""

import os
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
