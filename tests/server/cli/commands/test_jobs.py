import json
from pathlib import Path

from tests.server.cli.command import run_bigbatch
from tests.serving import Served, run_records, status


def _bad_job(folder: Path) -> Path:
    path = folder / "bad.yaml"
    path.write_text("name: bad\nlearning_rate: 1\nphases: [{steps: many}]\n")
    return path


def test_warnings_go_to_standard_error_and_are_part_of_the_json(home: list[str], job_file: Path) -> None:
    result = run_bigbatch("submit", job_file, *home)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "bigbatch: warning\n  phases[0].global_batch_size = 8\n" in result.stderr
    (warning,) = json.loads(run_bigbatch("submit", job_file, "--json", *home).stdout)["warnings"]
    assert warning["field"] == "phases[0].global_batch_size"


def test_a_bad_job_is_refused_in_json_where_json_was_asked_for(tmp_path: Path) -> None:
    result = run_bigbatch("submit", _bad_job(tmp_path), "--json")
    assert result.stdout == ""
    errors = json.loads(result.stderr)["errors"]
    assert {"field": "phases[0].steps", "value": "'many'"}.items() <= errors[3].items()
    assert set(errors[0]) == {"field", "value", "problem", "remedy"}


def test_a_submitted_job_stands_in_the_list(served: Served, home: list[str], job_file: Path) -> None:
    result = run_bigbatch("submit", job_file, "--name", "mine", *home)
    assert result.exit_code == 0
    (job,) = served.http.get("/v1/jobs").json()["jobs"]
    assert result.stdout == f"{job['id']} is QUEUED: {served.url}/jobs/{job['id']}\n"
    assert "mine" in run_bigbatch("jobs", *home).stdout
    assert json.loads(run_bigbatch("jobs", "--json", "--status", "queued", *home).stdout) == [job]
    assert run_bigbatch("jobs", "--status", "running", *home).stdout == "No job is RUNNING.\n"


def test_what_the_server_refuses_is_told_like_what_we_refuse(home: list[str], job_file: Path) -> None:
    (job_file.parent / "text.txt").unlink()
    result = run_bigbatch("submit", job_file, *home)
    assert result.exit_code == 2
    assert "data.corpus[0] = " in result.stderr
    assert "check the path" in result.stderr


def test_show_tells_the_state_and_the_link(served: Served, home: list[str]) -> None:
    job = served.submit()
    shown = run_bigbatch("show", job["id"], *home)
    assert "QUEUED" in shown.stdout
    assert f"{served.url}/jobs/{job['id']}\n" in shown.stdout
    assert served.token not in shown.stdout
    assert json.loads(run_bigbatch("show", job["id"], "--json", *home).stdout) == served.job(job["id"])


def test_an_unknown_status_or_id_is_bad_input(home: list[str]) -> None:
    assert run_bigbatch("jobs", "--status", "odd", *home).exit_code == 2
    unknown = run_bigbatch("show", "nothing", *home)
    assert unknown.exit_code == 2
    assert "bigbatch jobs" in unknown.stderr


def test_watch_ends_with_a_summary_and_says_by_its_exit_code_how_the_job_ended(served: Served, home: list[str]) -> None:
    job = served.submit()
    served.push(job["id"], run_records(20))
    watched = run_bigbatch("watch", job["id"], *home)
    assert watched.exit_code == 0
    assert "SUCCEEDED after 20 of 20 steps" in watched.stdout
    assert "word frequency alone: 6.000" in watched.stdout
    failed = served.submit()
    served.push(failed["id"], [status(1, "RUNNING"), status(2, "FAILED", error="the loss is [not] finite")])
    watched = run_bigbatch("watch", failed["id"], *home)
    assert watched.exit_code == 1
    assert "the loss is [not] finite" in watched.stdout


def test_watch_in_json_prints_every_record_as_a_line(served: Served, home: list[str]) -> None:
    job, records = served.submit(), run_records(3)
    served.push(job["id"], records)
    lines = [json.loads(line) for line in run_bigbatch("watch", job["id"], "--json", *home).stdout.splitlines()]
    assert [line["seq"] for line in lines if "seq" in line] == [record["seq"] for record in records]
    assert lines[2]["loss"] == records[2]["loss"]


def test_fields_of_a_job_file_can_be_set_on_the_command_line(served: Served, home: list[str], job_file: Path) -> None:
    result = run_bigbatch("submit", job_file, "--set", "phases[0].lr=3e-3", "--set", "labels.why=try", *home)
    assert result.exit_code == 0
    (job,) = served.http.get("/v1/jobs").json()["jobs"]
    assert (job["spec"]["phases"][0]["lr"], job["labels"]) == (3e-3, {"why": "try"})
    bad = run_bigbatch("submit", job_file, "--set", "phases[7].lr=1", *home)
    assert bad.exit_code == 2
    assert "phases[7].lr = 1\n      phases has no entry 7; write one of phases[0]" in bad.stderr


def test_a_clone_is_made_and_shown_with_its_parent(served: Served, home: list[str]) -> None:
    job = served.submit()
    result = run_bigbatch("clone", job["id"][:8], "--set", "phases[0].lr=3.0e-3", *home)
    assert result.exit_code == 0, result.stderr
    copy = served.http.get("/v1/jobs").json()["jobs"][0]
    assert result.stdout == f"{copy['id']} is QUEUED: {served.url}/jobs/{copy['id']}\n"
    assert (copy["parent"], copy["spec"]["phases"][0]["lr"]) == (job["id"], 3e-3)
    shown = dict(line.split(maxsplit=1) for line in run_bigbatch("show", copy["id"], *home).stdout.splitlines()[:-1])
    assert shown["parent"].strip() == job["id"]


def test_a_branch_from_a_step_that_is_not_there_is_refused_with_a_remedy(served: Served, home: list[str]) -> None:
    job = served.submit()
    result = run_bigbatch("clone", job["id"], "--from-step", "4", "--json", *home)
    assert result.exit_code == 2
    (error,) = json.loads(result.stderr)["errors"]
    assert error["field"] == "start_from.step"
    assert error["remedy"] == "it has no other, so begin a run of its own, or wait for one"


def test_a_dry_run_prints_what_plan_prints_and_submits_nothing(served: Served, home: list[str], job_file: Path) -> None:
    planned = run_bigbatch("plan", job_file, *home[:2])
    dry = run_bigbatch("submit", job_file, "--dry-run", *home)
    assert (dry.exit_code, dry.stdout) == (0, planned.stdout)
    assert "tiny: " in dry.stdout
    as_json = run_bigbatch("submit", job_file, "--dry-run", "--json", *home)
    assert json.loads(as_json.stdout) == json.loads(run_bigbatch("plan", job_file, "--json", *home[:2]).stdout)
    assert served.http.get("/v1/jobs").json()["jobs"] == []
    assert run_bigbatch("submit", job_file, "--dry-run", "--watch", *home).exit_code == 2


def test_a_sweep_is_submitted_from_a_file_with_paths_that_start_at_its_folder(
    served: Served, home: list[str], job_file: Path
) -> None:
    file = job_file.with_name("sweep.yaml")
    file.write_text(json.dumps({"job": json.loads(job_file.read_text()), "grid": {"seed": [5, 6]}}))
    result = run_bigbatch("sweep", file, *home)
    assert result.exit_code == 0, result.stderr
    *table, last = result.stdout.splitlines()
    jobs = served.http.get("/v1/jobs?sort=created").json()["jobs"]
    assert [line.split()[:2] for line in table[1:]] == [[job["id"], job["name"]] for job in jobs]
    assert last == f"sweep {jobs[0]['sweep']}: 2 jobs"
    assert jobs[0]["spec"]["data"]["corpus"] == [str(job_file.parent / "text.txt")]
    file.write_text("job: 3\n")
    assert run_bigbatch("sweep", file, *home).exit_code == 2
