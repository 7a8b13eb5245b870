from collections.abc import Sequence
from pathlib import Path

import pytest

from server.jobs.resources import Run, Submission
from tests.serving import TINY, Idle, Served, run_records, serving
from workers.planning.text import SMALL_BYTES


class Busy(Idle):
    """A cluster that takes every job and says that it runs."""

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        pass

    def submission(self, submission_id: str) -> Submission:
        return Submission(Run.RUNNING, submission_id)


def place(served: Served, job_id: str) -> dict[str, object]:
    found: dict[str, object] = served.http.get(f"/v1/jobs/{job_id}/queue").raise_for_status().json()
    return found


def test_a_job_says_its_place_and_that_the_cluster_is_not_there(served: Served) -> None:
    first, second = served.submit()["id"], served.submit(priority=5)["id"]
    served.parts.scheduler.turn()
    found = place(served, first)
    assert (found["position"], found["waiting"], found["reason"]) == (2, 2, "there is no cluster in this test")
    assert place(served, second)["position"] == 1
    assert place(served, second)["priority"] == pytest.approx(5, abs=0.1)
    assert served.http.get("/v1/jobs/nope/queue").status_code == 404


def test_a_job_that_does_not_wait_has_no_place(served: Served) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(3))
    nowhere = dict.fromkeys(("position", "priority", "reason", "starts_in_s"))
    assert place(served, job_id) == nowhere | {"waiting": 0}


def test_a_job_that_waits_for_processors_says_for_which_and_until_when(tmp_path: Path) -> None:
    with serving(tmp_path, Busy()) as served:
        runs = served.submit(parallel={"workers": 2})["id"]
        served.parts.scheduler.turn()
        served.push(runs, run_records(10)[:7])
        waits = served.http.post("/v1/jobs", json=TINY | {"name": "waits", "parallel": {"workers": 2}}).json()["id"]
        served.parts.scheduler.turn()
        found = place(served, waits)
        assert found["reason"] == "it needs 2 workers of 1 CPU each, and the cluster has 1 CPU free"
        assert served.job(waits)["queue_reason"] == found["reason"]
        assert found["starts_in_s"] == pytest.approx(served.job(runs)["seconds_left"])


def test_a_job_whose_text_is_prepared_says_how_far_it_has_come(tmp_path: Path) -> None:
    text = tmp_path / "much.txt"
    text.write_bytes(b"Tea is hot.\n" * (SMALL_BYTES // 12 + 1))
    with serving(tmp_path / "home", Busy()) as served:
        data = {"corpus": [str(text)], "vocab": 1024}
        first, second = served.submit(data=data)["id"], served.submit(data=data, name="second")["id"]
        served.parts.scheduler.turn()
        log = {
            "seq": 1,
            "time": "2026-01-01T00:00:00Z",
            "kind": "log",
            "text": "text: tokenizing, 40% done",
            "done": 0.4,
        }
        served.push(first, [log])
        served.parts.scheduler.turn()
        reasons = {first: "preparing its text, 40 %", second: f"preparing its text, 40 % (with job {first})"}
        for job_id, reason in reasons.items():
            found = place(served, job_id)
            assert (found["reason"], served.job(job_id)["queue_reason"], found["starts_in_s"]) == (reason, reason, None)
        assert served.job(first)["status"] == "QUEUED"
