import json

from tests.server.cli.command import run_bigbatch
from tests.server.http.routes.test_clones import folder_of, put_checkpoint
from tests.server.http.routes.test_logs import put_log
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


def test_a_job_is_deleted_when_its_name_was_typed_and_not_before(served: Served, home: list[str]) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(3))
    for answers in ("n\n", "y\nanother\n", "y\n"):
        asked = run_bigbatch("delete", job_id, *home, answers=answers)
        assert asked.exit_code == 1
        assert "tiny" in asked.stderr
    assert served.job(job_id)["status"] == "SUCCEEDED"
    assert run_bigbatch("delete", job_id, *home, answers="y\ntiny\n").stdout.endswith(f"{job_id} is deleted\n")
    assert run_bigbatch("show", job_id, *home).exit_code == 2


def test_a_script_deletes_without_being_asked(served: Served, home: list[str]) -> None:
    job_id = served.submit()["id"]
    assert run_bigbatch("delete", job_id, "--yes", *home).exit_code == 2, "it waits for its turn"
    run_bigbatch("cancel", job_id, *home)
    assert json.loads(run_bigbatch("delete", job_id, "--yes", "--json", *home).stdout)["id"] == job_id


def test_priority_and_labels_are_changed_and_jobs_are_found_by_them(served: Served, home: list[str]) -> None:
    first, second = served.submit()["id"], served.submit(name="second")["id"]
    assert run_bigbatch("priority", first, "7", *home).stdout == f"{first} has priority 7\n"
    told = run_bigbatch("label", first, "team=nlp", "draft=yes", *home).stdout
    assert told == f"{first} has the labels team=nlp, draft=yes\n"
    assert run_bigbatch("label", first, "draft=", "team=", *home).stdout == f"{first} has no labels\n"
    assert run_bigbatch("label", first, "draft", *home).exit_code == 2
    run_bigbatch("label", second, "team=nlp", *home)
    for options, found in (
        (["--label", "team=nlp"], [second]),
        (["--name", "seco"], [second]),
        (["--sort", "-priority"], [first, second]),
        (["--owner", "nobody"], []),
    ):
        listed = json.loads(run_bigbatch("jobs", "--json", *options, *home).stdout)
        assert [job["id"] for job in listed] == found
    assert run_bigbatch("jobs", "--owner", "nobody", *home).stdout == "No job meets these conditions.\n"
    assert run_bigbatch("jobs", "--sort", "odd", *home).exit_code == 2


def test_checkpoints_are_listed_and_removed(served: Served, home: list[str]) -> None:
    job = served.submit()
    assert run_bigbatch("checkpoints", job["id"], *home).stdout == "There is no checkpoint.\n"
    for step in (2, 4000):
        put_checkpoint(folder_of(served, job), step)
    header, *rows = run_bigbatch("checkpoints", job["id"], *home).stdout.splitlines()
    assert header.split() == ["step", "attempt", "size", "held-out", "loss", "place"]
    assert [row.split()[0] for row in rows] == ["2", "4,000"]
    left = json.loads(run_bigbatch("checkpoints", job["id"], "--delete", "2", "--json", *home).stdout)
    assert [each["step"] for each in left] == [4000]
    refused = run_bigbatch("checkpoints", job["id"], "--delete", "4000", *home)
    assert (refused.exit_code, "its newest checkpoint" in refused.stderr) == (2, True)


def test_logs_are_printed_as_they_are_or_as_json(served: Served, home: list[str]) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(3)[:3])
    assert run_bigbatch("logs", job_id, *home).exit_code == 2, "there is none yet"
    put_log(served, job_id, "one\n[two]\nthree \u00e9\n", rank=1)
    assert run_bigbatch("logs", job_id, "--rank", "1", "--follow", *home).stdout == "one\n[two]\nthree \u00e9\n"
    told = run_bigbatch("logs", job_id, "--rank", "1", "--attempt", "1", "--lines", "2", "--json", *home).stdout
    assert [json.loads(line) for line in told.splitlines()] == [{"line": "[two]"}, {"line": "three \u00e9"}]
