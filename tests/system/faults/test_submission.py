"""The server is killed at each point of a submission: the job is there once, and runs once."""

from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml

from tests.system.faults.dying import POINTS
from tests.system.faults.inspection import problems
from tests.system.faults.tally import Subject
from tests.system.service import Service
from tests.workers.small_job import PHASE, document

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def submit(service: Service, text: Path, key: str) -> str:
    spec = document(text, name="submitted", export={"at_end": False})
    headers = {"Content-Type": "application/yaml", "Idempotency-Key": key}
    answer = service.http.post("/v1/jobs", content=yaml.safe_dump(spec), headers=headers)
    return str(answer.raise_for_status().json()["id"])


def test_a_server_that_is_killed_at_any_point_of_a_submission_has_the_job_once_and_runs_it_once(
    service: Service, text: Path
) -> None:
    ids = []
    for point in POINTS:
        service.kill()
        service.start(("tests.system.faults.dying", point))
        with suppress(httpx.TransportError):  # whether the answer still comes depends on the point
            submit(service, text, point)
        assert service.process.wait(120) == -9, point
        service.http.close()
        service.start()
        ids.append(submit(service, text, point))
        assert submit(service, text, point) == ids[-1]
    assert len(set(ids)) == len(POINTS)
    for job_id in ids:
        job = service.until_ended(job_id)
        assert (job["attempt"], job["restarts"]) == (1, 0)
        assert list(problems(service, Subject(0, "", job_id), int(PHASE["steps"]))) == []
