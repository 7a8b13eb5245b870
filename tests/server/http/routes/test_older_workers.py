"""A server takes what the workers of earlier releases push, and answers what they understand."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import Served
from workers.contract.push import Command

PUSHES = Path(__file__).parents[3] / "data" / "pushes"
UNDERSTOOD = {"release-0.1": {"none", "checkpoint", "make_way", "pause", "stop"}}
"""The commands that each release carries out; another one stops its pushes, for it cannot read the reply."""


def _push(served: Served, job_id: str, body: bytes) -> dict[str, Any]:
    """Push as a run of any release does: to the address, and with the token, of its control file."""
    control = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())
    headers = {"Authorization": f"Bearer {control['token']}", "Content-Type": "application/json"}
    answer = httpx.post(control["url"], content=body, headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


@pytest.mark.parametrize("release", sorted(UNDERSTOOD))
def test_all_that_a_release_pushes_is_stored_and_acknowledged(served: Served, release: str) -> None:
    job_id, kinds = served.submit()["id"], set[str]()
    for body in (PUSHES / f"{release}.jsonl").read_bytes().splitlines():
        pushed = json.loads(body)["records"]
        kinds |= {record["kind"] for record in pushed}
        reply = _push(served, job_id, body)
        assert reply["acknowledged"] == pushed[-1]["seq"]
        assert reply["command"] in UNDERSTOOD[release]
        assert isinstance(reply["request"], int)
    assert kinds >= {"status", "tensors", "step", "evaluation", "checkpoint"}
    job = served.job(job_id)
    assert (job["status"], job["step"], job["checkpoint_step"]) == ("SUCCEEDED", 4, 4)
    assert job["evaluation"]["mlm_loss"] > 0
    assert served.http.get(f"/v1/jobs/{job_id}/metrics").json()["steps"] == [1, 2, 3, 4]
    ratios = served.http.get(f"/v1/jobs/{job_id}/trust-ratios").json()
    assert len(ratios["names"]) == len(ratios["values"]) > 10


def test_no_command_is_sent_that_the_workers_of_the_release_before_do_not_know() -> None:
    """A new command needs a release in which workers know it and no server sends it."""
    assert set(Command) == UNDERSTOOD["release-0.1"]
