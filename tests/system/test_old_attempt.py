"""All processes of an attempt are stopped, a newer one begins, and the old ones go on: nothing of theirs counts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from server.jobs.resources import Run, Submission
from tests.serving import Idle, Served, serving
from tests.workers.small_job import PHASE, document
from tests.workers.test_fencing import ATTEMPT, files_of
from workers.contract.records import RECORD, StatusRecord, StepRecord
from workers.contract.run.folder import RunFolder

STEPS, PATIENCE_S = 40, 240


class Processes(Idle):
    """A cluster on which the driver and the only worker of an attempt are one process. Its head can be lost."""

    def __init__(self) -> None:
        self.started: dict[str, subprocess.Popen[str]] = {}
        self._known: set[str] = set()
        self._session = 1

    def session(self) -> str:
        return f"session_{self._session}"

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        attempt, data = (entrypoint[entrypoint.index(option) + 1] for option in ("--attempt", "--data"))
        command = [sys.executable, "-c", ATTEMPT, str(folder), attempt, data]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.started[submission_id] = process
        self._known.add(submission_id)

    def submission(self, submission_id: str) -> Submission:
        if submission_id not in self._known:
            return Submission(Run.UNKNOWN, end="the cluster that ran it is gone, or has forgotten it.")
        is_there = self.started[submission_id].poll() is None
        return Submission(Run.RUNNING) if is_there else Submission(Run.ENDED, end="it ended.")

    def lose_head(self) -> None:
        """Forget everything; the processes of what was submitted live on, as those on another node do."""
        self._known.clear()
        self._session += 1


@pytest.fixture
def processes() -> Iterator[Processes]:
    cluster = Processes()
    yield cluster
    for process in cluster.started.values():
        process.kill()
        process.communicate()


@pytest.mark.timeout(600)  # three processes that load torch, on a machine that may be busy
def test_an_attempt_that_comes_back_after_the_next_one_began_changes_nothing_and_is_told_to_stop(
    tmp_path: Path, text: Path, processes: Processes
) -> None:
    phase, checkpoint = (
        PHASE | {"global_batch_size": 32, "micro_batch_size": 4, "steps": STEPS},
        {"every_steps": 6, "keep": 20},
    )
    with serving(tmp_path / "home", processes) as served:
        spec = document(text, phases=[phase], checkpoint=checkpoint, export={"at_end": False})
        job_id = served.http.post("/v1/jobs", json=spec).raise_for_status().json()["id"]
        folder = RunFolder(served.settings.run_folder(job_id))
        wait_for(lambda: served.job(job_id)["step"] >= 10)
        old = processes.started[f"{job_id}-a1"]
        old.send_signal(signal.SIGSTOP)
        processes.lose_head()
        wait_for(lambda: any(name.attempt == 2 for name in folder.finished()))
        written = files_of(folder, 2)
        old.send_signal(signal.SIGCONT)
        _, said = old.communicate(timeout=PATIENCE_S)
        assert (old.returncode, "attempt 1 is over" in said) == (1, True), said
        assert push_as(folder, 1) == "stop"
        assert push_as(folder, 2) == "none"
        wait_for(lambda: served.job(job_id)["finished_at"] is not None)
        job = served.job(job_id)
        assert (job["status"], job["attempt"], job["restarts"], job["error"]) == ("SUCCEEDED", 2, 0, None)
        assert written.items() <= files_of(folder, 2).items()
        expect_each_step_once(served, job_id, folder)
    assert folder.late() == []


def expect_each_step_once(served: Served, job_id: str, folder: RunFolder) -> None:
    every = list(range(1, STEPS + 1))
    found = served.http.get(f"/v1/jobs/{job_id}/metrics?series=loss&buckets=4096").raise_for_status().json()
    assert found["steps"] == every
    records = [RECORD.validate_json(line) for line in folder.journal.read_bytes().splitlines()]
    [begun] = [each.seq for each in records if isinstance(each, StatusRecord) and each.attempt == 2][:1]
    attempts = {each.attempt for each in records[begun:] if isinstance(each, StatusRecord | StepRecord)}
    assert attempts == {2}
    stored = served.parts.records.read_after(job_id, 0, 10**4)
    last_of_step = {each.step: each.seq for each in records if isinstance(each, StepRecord)}
    others = {each.seq for each in records if not isinstance(each, StepRecord)}
    assert {each["seq"] for each in stored.records} == others | set(last_of_step.values())


def push_as(folder: RunFolder, attempt: int) -> str:
    """Push nothing, as a run does that has nothing new; return what it is told."""
    control = folder.control()
    body = json.dumps({"attempt": attempt, "records": []})
    headers = {"Authorization": f"Bearer {control.token}", "Content-Type": "application/json"}
    answer = httpx.post(control.url, content=body, headers=headers, trust_env=False).raise_for_status()
    return str(answer.json()["command"])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
