import json
from pathlib import Path

import pytest

from tests.serving import Served, run_records, serving, status


def ask(served: Served, job_id: str, verb: str) -> str:
    answer = served.http.post(f"/v1/jobs/{job_id}/{verb}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


def test_a_waiting_job_is_cancelled_at_once_and_an_ended_one_cannot_be(served: Served) -> None:
    waiting, ended = served.submit()["id"], served.submit()["id"]
    assert ask(served, waiting, "cancel") == "CANCELLED"
    assert ask(served, waiting, "cancel") == "CANCELLED"
    served.push(ended, run_records(3))
    answer = served.http.post(f"/v1/jobs/{ended}/cancel")
    assert answer.status_code == 409
    assert "is SUCCEEDED" in answer.json()["detail"]


@pytest.mark.parametrize(("verb", "state", "command"), [("cancel", "STOPPING", "stop"), ("pause", "PAUSING", "pause")])
def test_a_running_job_hears_in_its_next_push_that_it_shall_end(
    served: Served, verb: str, state: str, command: str
) -> None:
    job_id = served.submit()["id"]
    records = run_records(3)
    assert served.push(job_id, records[:3]) == {"acknowledged": 3, "command": "none", "request": 0}
    assert ask(served, job_id, verb) == state
    assert served.push(job_id, [])["command"] == command


def test_a_waiting_job_is_paused_and_resumed_as_often_as_one_likes(served: Served) -> None:
    job_id = served.submit()["id"]
    for _ in range(2):
        assert [ask(served, job_id, verb) for verb in ("pause", "pause", "resume", "resume")] == [
            "PAUSED",
            "PAUSED",
            "QUEUED",
            "QUEUED",
        ]


def test_a_checkpoint_is_asked_for_until_the_run_has_reported_it(served: Served) -> None:
    job_id = served.submit()["id"]
    refused = served.http.post(f"/v1/jobs/{job_id}/checkpoint")
    assert (refused.status_code, refused.json()["title"]) == (409, "The job's status does not allow this.")
    records = run_records(3)
    served.push(job_id, records[:3])
    assert ask(served, job_id, "checkpoint") == "RUNNING"
    assert served.push(job_id, []) == {"acknowledged": 3, "command": "checkpoint", "request": 1}
    saved = {"kind": "checkpoint", "step": 1, "path": "/1", "size_bytes": 1, "seconds": 0.1, "request": 1}
    reply = served.push(job_id, [{"seq": 4, "time": records[2]["time"]} | saved])
    assert reply == {"acknowledged": 4, "command": "none", "request": 1}


def test_a_job_that_failed_is_retried_under_its_id_by_a_server_at_another_address(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        job_id = served.submit()["id"]
        served.push(job_id, [status(1, "RUNNING"), status(2, "FAILED", error="no disk")])
        told = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())
    with serving(tmp_path) as served:
        answer = served.http.post(f"/v1/jobs/{job_id}/retry").json()
        assert (answer["id"], answer["status"], answer["error"]) == (job_id, "QUEUED", None)
        control = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())
        assert control["url"].startswith(served.url)
        assert control["token"] == told["token"]
        assert served.push(job_id, [status(3, "RUNNING", attempt=2)])["command"] == "none"
        assert served.job(job_id)["status"] == "RUNNING"
