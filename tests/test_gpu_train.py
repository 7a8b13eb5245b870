"""scripts/gpu-train on a CPU, from end to end, and what it says where there is no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "scripts" / "gpu-train"


def test_without_a_gpu_it_says_so_and_exits_with_2(tmp_path: Path) -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(PROGRAM), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=hidden)
    assert (done.returncode, done.stdout) == (2, "")
    assert "gpu-train: nothing was measured. torch" in done.stderr
    assert "finds no GPU: run this where nvidia-smi shows one" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(600)
def test_on_a_cpu_it_walks_the_whole_path_and_measures_every_contender(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--device", "cpu", "--minutes", "9", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu-train.json").read_text())
    assert [station["name"] for station in report["stations"]] == [
        "train until SIGTERM",
        "resume",
        "evaluate",
        "export and load",
    ]
    contenders = ("plain transformers", "plain loop, our model", "bigbatch")
    measured = {(row["seq_len"], row["name"]) for row in report["rows"]}
    assert measured == {(length, name) for length in (32, 64) for name in contenders}
    assert all(row["tokens_per_s"] > 0 and row["useful_flops"] > 0 for row in report["rows"])
    assert [(each["seq_len"], each["profile"]["steps"]) for each in report["profiles"]] == [(32, 4), (64, 4)]
    assert all(line["ms"] > 0 for each in report["profiles"] for line in each["profile"]["longest"])
    assert (tmp_path / "gpu-train.md").read_text() == done.stdout
    assert "bigbatch ÷ plain transformers, bert-tiny, 64 tokens" in done.stdout
