"""A real `train`, alone and under torchrun, that is told to end in the middle of its steps."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workers.small_job import PHASE, document

ALONE = [sys.executable, "-m", "workers.train"]
ON_TWO_RANKS = [sys.executable, "-m", "workers.torchrun", "2"]
Start = Callable[[list[str], int], subprocess.Popen[str]]


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def start(text: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a job that would run for hours, and waits for its first step."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str], workers: int) -> subprocess.Popen[str]:
        job = document(text, workers=workers, phases=[PHASE | {"steps": 1_000_000}], checkpoint={"every_steps": 10**6})
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        environment = os.environ | {"BIGBATCH_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, str(tmp_path / "job.yaml"), "--run", str(tmp_path / "run"), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            if '"kind":"step"' in line:
                return process
            said.append(line)
        raise AssertionError(f"there was no step; it ended with {process.wait()} and said {''.join(said)}")

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ends_with_a_checkpoint_of_its_last_step(run: Path) -> bool:
    """Whether the last step is in a checkpoint, and the last record says PAUSED."""
    told = events(run)
    steps = [event["step"] for event in told if event["kind"] == "step"]
    saved = [event for event in told if event["kind"] == "checkpoint"]
    assert [event["step"] for event in saved] == [steps[-1]]
    assert (Path(saved[0]["path"]) / "manifest.json").exists()
    return bool(told[-1]["kind"] == "status" and told[-1]["status"] == "PAUSED")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_a_status(
    number: signal.Signals, code: int, start: Start, tmp_path: Path
) -> None:
    process = start(ALONE, 1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert ends_with_a_checkpoint_of_its_last_step(tmp_path / "run")


def test_sigterm_to_torchrun_leaves_one_checkpoint_of_all_ranks(start: Start, tmp_path: Path) -> None:
    process = start(ON_TWO_RANKS, 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in output) == (143, False), output
    assert ends_with_a_checkpoint_of_its_last_step(tmp_path / "run")


def test_ctrl_c_at_the_terminal_of_torchrun_leaves_one_checkpoint_of_all_ranks(start: Start, tmp_path: Path) -> None:
    process = start(ON_TWO_RANKS, 2)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in output) == (130, False), output
    assert ends_with_a_checkpoint_of_its_last_step(tmp_path / "run")


def test_ctrl_c_while_torch_is_being_imported_ends_it_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "workers.train", str(tmp_path / "job.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.endswith(" torch._utils_internal\n"):  # among the first modules of torch
            process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130, "".join(said[-20:])
    assert "Traceback" not in "".join(said)
    assert said[-1] == "ended by SIGINT before the first step\n"
