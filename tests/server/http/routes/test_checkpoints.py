"""Checkpoints over HTTP, in folders as runs leave them."""

from typing import Any

import httpx
import pytest

from tests.server.http.routes.test_clones import folder_of, put_checkpoint
from tests.serving import Served, run_records


@pytest.fixture
def job(served: Served) -> dict[str, Any]:
    """A paused job with checkpoints of steps 2, 4 and 6."""
    job = served.submit()
    served.http.post(f"/v1/jobs/{job['id']}/pause")
    for step in (2, 4, 6):
        put_checkpoint(folder_of(served, job), step)
    return job


def ask(served: Served, job: dict[str, Any], step: int | None = None) -> httpx.Response:
    path = f"/v1/jobs/{job['id']}/checkpoints"
    return served.http.get(path) if step is None else served.http.delete(f"{path}/{step}")


def steps(answer: httpx.Response) -> list[int]:
    return [each["step"] for each in answer.raise_for_status().json()["checkpoints"]]


def test_checkpoints_are_listed_with_what_their_manifests_say(served: Served, job: dict[str, Any]) -> None:
    folder = folder_of(served, job)
    first, second, third = ask(served, job).json()["checkpoints"]
    assert first == {
        "step": 2,
        "attempt": 1,
        "place": str(folder.path / "checkpoints" / "step-00000002-a1"),
        "is_newest": False,
        "size_bytes": len("weights of step 2"),
        "world_size": 1,
        "is_sound": True,
        "evaluation": None,
        "problem": None,
    }
    assert (second["is_newest"], third["is_newest"]) == (False, True)


def test_one_that_is_damaged_or_not_whole_hides_no_other(served: Served, job: dict[str, Any]) -> None:
    folder = folder_of(served, job)
    newest = folder.finished()[-1]
    folder.store.put(newest.manifest, b"{}")
    folder.store.delete(folder.finished()[0].manifest)
    listed = ask(served, job).json()["checkpoints"]
    assert [each["step"] for each in listed] == [4, 6]
    assert "Field required" in listed[1]["problem"]
    assert listed[1]["size_bytes"] is None


def test_the_newest_one_of_a_job_that_may_go_on_is_not_removed_and_any_other_is(
    served: Served, job: dict[str, Any]
) -> None:
    refused = ask(served, job, 6)
    assert refused.status_code == 409
    assert "would go on from step 6, its newest checkpoint" in refused.json()["detail"]
    assert steps(ask(served, job, 2)) == [4, 6]
    assert [name.step for name in folder_of(served, job).checkpoints()] == [4, 6]
    missing = ask(served, job, 2)
    assert missing.status_code == 404
    assert missing.json()["detail"].endswith("has no checkpoint of step 2: there are those of steps 4, 6")
    assert ask(served, job, -1).status_code == 422


def test_a_job_that_has_ended_may_lose_all_and_knows_which_is_its_newest(served: Served) -> None:
    job, records = served.submit(), run_records(3)
    saved = {"kind": "checkpoint", "path": "x", "size_bytes": 1, "seconds": 0.1, "time": records[0]["time"]}
    for step in (2, 3):
        put_checkpoint(folder_of(served, job), step)
    served.push(job["id"], [*records[:-1], saved | {"seq": 6, "step": 3}, records[-1] | {"seq": 7}])
    assert served.job(job["id"])["checkpoint_step"] == 3
    assert steps(ask(served, job, 3)) == [2]
    told = served.job(job["id"])
    assert (told["checkpoint_step"], told["checkpoint_path"].endswith("step-00000002-a1")) == (2, True)
    assert steps(ask(served, job, 2)) == []
    assert served.job(job["id"])["checkpoint_step"] is None


def test_a_job_without_any_has_an_empty_list(served: Served) -> None:
    assert steps(ask(served, served.submit())) == []
