"""The program itself: a run that is killed half-way goes on from its checkpoint, and runs that are done stay done."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch_scaling import name, opened
from benchmarks.scaling.plan import Plan, next_run
from benchmarks.scaling.results import read

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "batch_scaling.py"
FIRST = next_run(Plan((4, 8), (0,)), {})


def command(*options: str) -> list[str]:
    words = ["--json", "runs.json", "--work", "work", "--epochs", "0.02", "--batches", "4", "8", "--seeds", "1"]
    return [sys.executable, str(PROGRAM), *words, *options]


def records(log: Path, kind: str) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
    return [record for record in found if record["kind"] == kind]


def test_a_run_that_was_killed_goes_on_from_its_checkpoint_and_is_written_down_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGBATCH_HOME", str(tmp_path / "home"))
    assert FIRST is not None
    log, file = tmp_path / "work" / f"{name(FIRST)}.log", tmp_path / "runs.json"
    with subprocess.Popen(command(), cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not records(log, "checkpoint") and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    saved = records(log, "checkpoint")[-1]["step"]
    assert not file.exists()

    done = subprocess.run(command("--runs", "1"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "held-out MLM loss" in done.stdout
    assert [record["step"] for record in records(log, "step") if record["attempt"] == 2] == list(range(saved + 1, 58))
    (result,) = read(file).results
    assert (result.run, result.steps) == (FIRST, 57)
    assert [path.name for path in (tmp_path / "work").iterdir() if path.is_dir()] == []

    other = argparse.Namespace(device="cpu", batches=[4, 8], seeds=1, epochs=0.03)
    with pytest.raises(ValueError, match="name another file with --json"):
        opened(file, other)
