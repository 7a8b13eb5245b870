"""A part of Ray is killed while a job trains: the job goes on, takes each step once, and the log says what happened."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.cluster.process import ClusterProcess
from tests.system.faults.parts import processes
from tests.system.service import Service, expect_every_step_once, records_of, wait_for
from tests.workers.small_job import document

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STEPS = 600
PHASE = {"seq_len": 32, "global_batch_size": 16, "micro_batch_size": 8, "lr": 2e-2, "warmup": 0.1, "steps": STEPS}
LOST = "the cluster that ran it is gone, or has forgotten it"


@dataclass(frozen=True)
class Kill:
    """A process to be killed, and what is said of the attempt that it ends."""

    process: str
    """What its command line has."""
    says: str
    """A pattern of the reason."""
    how: signal.Signals = signal.SIGKILL


KILLS = {
    "worker": Kill("ray::RayTrainWorker", "rank 0: "),
    "driver": Kill("-m workers.launch", "its driver was killed by SIGKILL"),
    "controller": Kill("ray::TrainController", "driver ended with exit code 1.*TrainController"),
    "supervisor": Kill("ray::JobSupervisor", "Ray says: Job supervisor actor died"),
    "agent": Kill("ray::DashboardAgent", LOST),
    "raylet": Kill("raylet/raylet ", LOST),
    "raylet that shuts itself down": Kill("raylet/raylet ", LOST, signal.SIGTERM),
    "gcs": Kill("gcs/gcs_server ", LOST),
    "dashboard": Kill("dashboard/dashboard.py ", LOST),
    "head": Kill("ray.scripts.scripts start ", LOST),
}


def reasons(service: Service, job_id: str) -> list[str]:
    """What the log says of the first attempt's end. An entry may take several lines; the next one begins with a date.

    The first is what the cluster knows of it. The second is what the attempt said itself, if it did: ranks that Ray
    ends by SIGTERM, once something else was killed, may still save a checkpoint.
    """
    of_job = rf" \[server\.scheduler\] attempt=1 job_id={job_id}$"
    told = rf"(?:settle|the attempt was interrupted:) ((?:(?!^\d{{4}}-).)*){of_job}"
    return re.findall(told, service.log.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_job_goes_on_after_a_kill_and_takes_every_step_once(service: Service, text: Path, kill: Kill) -> None:
    changes: dict[str, Any] = {"phases": [PHASE], "checkpoint": {"every_steps": 20}, "export": {"at_end": False}}
    job_id = service.submit(document(text, workers=1, name="killed", **changes))
    service.until_step(job_id, 30)
    killed = processes(ClusterProcess(service.settings.ray), kill.process)
    assert killed, [each.cmdline() for each in ClusterProcess(service.settings.ray).processes()]
    for process in killed:
        process.send_signal(kill.how)
    job = service.until_ended(job_id)
    assert (job["status"], job["error"]) == ("SUCCEEDED", None), service.log.read_text()
    assert job["attempt"] == 2
    expect_every_step_once(service, job_id, STEPS)
    written = records_of(service, job_id)
    assert {record.attempt for record in written} == {1, 2}
    assert min(record.step for record in written if record.attempt == 2) > 20, "it went on from a checkpoint"
    told = reasons(service, job_id)
    assert any(re.search(kill.says, each, re.DOTALL) for each in told), service.log.read_text()
    wait_for(lambda: not service.workers(), "the end of the ranks")
    assert not [each for each in killed if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
