"""An attempt that is stopped and comes back after a newer one has begun: what it still does changes nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workers.small_job import PHASE, document
from tests.workers.training.running import records
from workers.contract.documents import parse_spec
from workers.contract.records import RunStatus, StatusRecord, StepRecord
from workers.contract.run.folder import CheckpointName, RunFolder

# What the driver and its only worker do with the run folder.
ATTEMPT = """
import sys
from pathlib import Path
from workers import ranks
from workers.contract.run.folder import RunFolder
from workers.training import loop
from workers.training.reporting.reporter import Reporter
folder, attempt, data = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3])
folder.take_over(attempt)
try:
    with ranks.process_group(folder.spec()):
        loop.train(folder.spec(), folder, data, reporter=Reporter(folder, attempt), attempt=attempt)
except Exception:
    Reporter(folder, attempt)  # where the driver would say how the attempt ended
    raise
"""
STEPS = 60
Start = Callable[[int], subprocess.Popen[str]]


@pytest.fixture
def folder(text: Path, tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    phases, checkpoint = [PHASE | {"steps": STEPS}], {"every_steps": 6, "keep": 1}
    folder.put_spec(parse_spec(document(text, phases=phases, checkpoint=checkpoint, export={"at_end": False})))
    return folder


@pytest.fixture
def start(folder: RunFolder, tmp_path: Path) -> Iterator[Start]:
    """Starts an attempt in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(attempt: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ATTEMPT, str(folder.path), str(attempt), str(tmp_path / "data")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stop_while_it_saves(process: subprocess.Popen[str], folder: RunFolder) -> CheckpointName:
    """Stop a process between the first file of a checkpoint and its manifest; return which checkpoint."""
    deadline = time.monotonic() + 120
    seen = set[CheckpointName]()
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for name in sorted(set(folder.checkpoints()) - seen):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            seen.add(name)
            # The first one is left alone: the next attempt should have one to go on from.
            if folder.finished() and (folder.path / name.prefix).exists() and name not in folder.finished():
                return name
            process.send_signal(signal.SIGCONT)
    raise AssertionError("no checkpoint was caught in the middle")


def ends_with_a_clear_word(old: subprocess.Popen[str]) -> bool:
    """Let a stopped attempt go on, and tell whether it ends by itself and says why."""
    old.send_signal(signal.SIGCONT)
    _, said = old.communicate(timeout=60)
    return old.returncode == 1 and "attempt 1 is over" in said


def steps_of(folder: RunFolder, attempt: int) -> list[int]:
    return [r.step for r in records(folder.path) if isinstance(r, StepRecord) and r.attempt == attempt]


def test_a_checkpoint_that_an_old_attempt_finishes_too_late_is_never_gone_on_from(
    folder: RunFolder, start: Start
) -> None:
    old = start(1)
    unfinished = stop_while_it_saves(old, folder)
    before = folder.finished()
    folder.take_over(2)  # an attempt that ends before it has a checkpoint of its own
    folder.lock.release()
    assert ends_with_a_clear_word(old)
    assert not folder.store.has(unfinished.manifest)
    assert (folder.finished(), folder.late()) == (before, [])

    _, said = (third := start(3)).communicate(timeout=120)
    assert third.returncode == 0, said
    assert steps_of(folder, 3) == list(range(before[-1].step + 1, STEPS + 1))
    numbers = {r.step for r in records(folder.path) if isinstance(r, StepRecord)}
    assert numbers == set(range(1, STEPS + 1))


def test_an_old_attempt_that_comes_back_removes_nothing_of_a_newer_one(folder: RunFolder, start: Start) -> None:
    old = start(1)
    stop_while_it_saves(old, folder)
    _, said = (new := start(2)).communicate(timeout=120)
    assert new.returncode == 0, said
    written = files_of(folder, 2)
    journal = folder.journal.read_bytes()
    assert ends_with_a_clear_word(old)
    assert files_of(folder, 2) == written
    assert folder.journal.read_bytes() == journal
    assert folder.steps_done() == STEPS
    statuses = [(r.attempt, r.status) for r in records(folder.path) if isinstance(r, StatusRecord)]
    assert statuses == [(1, RunStatus.RUNNING), (2, RunStatus.RUNNING), (2, RunStatus.SUCCEEDED)]


def files_of(folder: RunFolder, attempt: int) -> dict[str, bytes]:
    ours = [name for name in folder.store.list("checkpoints") if f"-a{attempt}/" in name]
    assert ours
    return {name: folder.store.read(name) for name in ours}
