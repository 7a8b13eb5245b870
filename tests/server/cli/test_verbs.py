import json

from tests.server.cli.command import run_bigbatch
from tests.serving import Served, run_records


def test_a_cancelled_job_ends_and_a_finished_one_cannot_be_cancelled(served: Served, home: list[str]) -> None:
    first, second = served.submit(), served.submit(name="second")
    assert run_bigbatch("cancel", first["id"], *home).stdout == f"{first['id']} is CANCELLED\n"
    served.push(second["id"], run_records(2))
    refused = run_bigbatch("cancel", second["id"], *home)
    assert refused.exit_code == 2
    assert "SUCCEEDED" in refused.stderr


def test_a_job_is_paused_resumed_cancelled_and_retried(served: Served, home: list[str]) -> None:
    job_id = served.submit()["id"]
    told = [run_bigbatch(verb, job_id, *home).stdout for verb in ("pause", "resume", "cancel", "retry")]
    assert told == [f"{job_id} is {state}\n" for state in ("PAUSED", "QUEUED", "CANCELLED", "QUEUED")]


def test_a_checkpoint_is_announced_and_refused_where_nothing_trains(served: Served, home: list[str]) -> None:
    job_id = served.submit()["id"]
    refused = run_bigbatch("checkpoint", job_id, *home)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "only a job that trains can save a checkpoint; it has none yet" in refused.stderr
    served.push(job_id, run_records(3)[:3])
    assert run_bigbatch("checkpoint", job_id, *home).stdout == (
        f"{job_id} is RUNNING and saves a checkpoint after its present step\n"
    )
    asked = json.loads(run_bigbatch("checkpoint", job_id, "--json", *home).stdout)
    assert (asked["command"], asked["checkpoint_requests"]) == ("checkpoint", 1)
