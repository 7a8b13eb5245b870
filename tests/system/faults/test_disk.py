"""A disk is full while a job trains: at a checkpoint, and at a record. test_service.py has that of the database."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.system.faults.disk import Disk
from tests.system.service import Service, expect_every_step_once, records_of, wait_for
from tests.workers.small_job import document
from workers.contract.run.folder import RunFolder

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STEPS = 600
PHASE = {"seq_len": 32, "global_batch_size": 16, "micro_batch_size": 8, "lr": 2e-2, "warmup": 0.1, "steps": STEPS}


def submit(service: Service, text: Path) -> str:
    changes: dict[str, Any] = {"phases": [PHASE], "checkpoint": {"every_steps": 20}, "export": {"at_end": False}}
    return service.submit(document(text, workers=1, name="full", **changes))


def titles(service: Service, job_id: str) -> list[str]:
    """The alerts of a job."""
    found = service.http.get(f"/v1/jobs/{job_id}/records?kind=alert").raise_for_status().json()
    return [record["title"] for record in found["records"]]


def test_a_job_whose_checkpoints_find_no_room_trains_on_without_them_and_says_so(service: Service, text: Path) -> None:
    job_id = submit(service, text)
    folder = RunFolder(service.settings.run_folder(job_id))
    with Disk(folder.path / "checkpoints", 4 * 2**20) as disk:
        disk.fill()
        wait_for(lambda: "A checkpoint could not be written" in titles(service, job_id), "an alert")
        job = service.job(job_id)
        assert (job["status"], job["attempt"], job["checkpoint_step"]) == ("RUNNING", 1, None)
        disk.free()
        job = service.until_ended(job_id)
        assert (job["status"], job["attempt"], job["restarts"], job["error"]) == ("SUCCEEDED", 1, 0, None)
        assert folder.steps_done() == job["checkpoint_step"] == STEPS
        expect_every_step_once(service, job_id, STEPS)


def test_a_job_that_cannot_write_a_record_goes_on_from_its_checkpoint_once_there_is_room(
    service: Service, text: Path, runs_disk: Disk
) -> None:
    job_id = submit(service, text)
    service.until_step(job_id, 30)
    runs_disk.fill()
    try:
        wait_for(lambda: service.job(job_id)["attempt"] == 2, "the end of attempt 1")
    finally:
        runs_disk.free()
    job = service.until_ended(job_id)
    assert (job["status"], job["error"]) == ("SUCCEEDED", None), service.log.read_text()
    expect_every_step_once(service, job_id, STEPS)
    assert min(record.step for record in records_of(service, job_id) if (record.attempt or 0) > 1) > 20
    told = rf"the attempt was interrupted: (?:(?!^\d{{4}}-).)*No space left on device.* attempt=1 job_id={job_id}"
    assert re.search(told, service.log.read_text(), re.DOTALL | re.MULTILINE)
