"""The first stage of a job on a real cluster: its text is prepared while it waits."""

import random
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.cluster.process import ClusterProcess
from tests.system.service import Service, expect_every_step_once, wait_for
from tests.workers.small_job import document
from tests.workers.training.running import records
from workers.contract.records import LogRecord

pytestmark = pytest.mark.timeout(900)  # a standstill is noticed long before


def write(path: Path, size_bytes: int) -> Path:
    """Write so much text of made-up words, from which a vocabulary takes a while to learn."""
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdefghiklmnoprstuw", k=draw.randint(2, 9))) for _ in range(20_000)]
    with path.open("w") as file:
        while file.tell() < size_bytes:
            file.write(" ".join(draw.choices(words, k=12)).capitalize() + ".\n" * draw.randint(1, 2))
    return path


def job_of(text: Path, **changes: Any) -> dict[str, Any]:
    return document(text, data={"corpus": [str(text)], "vocab": 30_000}, export={"at_end": False}) | changes


def preparations(service: Service) -> list[psutil.Process]:
    """The programs that prepare text now, without those that work for them."""
    ours = ClusterProcess(service.settings.ray).processes()
    return [process for process in ours if "workers.prepare" in process.cmdline()]


def test_two_jobs_have_one_preparation_which_outlives_that_it_is_cancelled_and_killed(
    service: Service, tmp_path: Path
) -> None:
    text = write(tmp_path / "much.txt", 3_000_000)
    first, second = (service.submit(job_of(text, name=name)) for name in ("first", "second"))
    wait_for(lambda: "preparing its text, " in str(service.job(first)["queue_reason"]), "the first preparation")
    wait_for(lambda: len(preparations(service)) == 1, "its program")
    wait_for(lambda: f"(with job {first})" in str(service.job(second)["queue_reason"]), "the second one's reason")
    [of_first] = preparations(service)
    cancelled = service.http.post(f"/v1/jobs/{first}/cancel").raise_for_status().json()
    assert (cancelled["status"], cancelled["attempt"]) == ("CANCELLED", 0)
    wait_for(lambda: service.job(second)["preparations"] == 1, "the second one takes over")
    assert not of_first.is_running(), "not two at a time"
    assert service.job(first)["text_state"] == "unprepared"
    service.http.delete(f"/v1/jobs/{first}").raise_for_status()
    wait_for(lambda: service.job(second)["text_done"] is not None, "the second preparation has begun")
    [of_second] = preparations(service)
    of_second.kill()
    done = service.until_ended(second)
    assert (done["status"], done["attempt"], done["preparations"], done["restarts"]) == ("SUCCEEDED", 1, 2, 0), done
    expect_every_step_once(service, second, 6)
    assert preparations(service) == []
    stages = [each for each in records(service.settings.run_folder(second)) if isinstance(each, LogRecord)]
    of_attempt = [each.text for each in stages if each.done is None]
    assert of_attempt[0].startswith("text: 1 file"), "the workers found all of it done"
    assert service.http.get(f"/v1/jobs/{second}/logs", params={"attempt": 0}).is_success


def test_a_text_that_cannot_be_used_fails_its_jobs_before_they_have_workers(service: Service, tmp_path: Path) -> None:
    text = write(tmp_path / "bad.txt", 1_200_000)
    with text.open("ab") as file:
        file.write(b"Tea is \xff hot.\n")
    jobs = [service.until_ended(job_id) for job_id in [service.submit(job_of(text)) for _ in range(2)]]
    assert [(job["status"], job["attempt"]) for job in jobs] == [("FAILED", 0)] * 2
    assert all(str(text) in job["error"] and "encoding_errors" in job["error"] for job in jobs)
    assert [job["preparations"] for job in jobs] == [1, 0]
    wait_for(lambda: preparations(service) == [], "nothing is left")
