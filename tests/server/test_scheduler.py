"""The scheduler on a real cluster, with small programs in the place of training."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from server import scheduler as scheduler_module
from server.cluster.existing import ExistingCluster
from server.cluster.local import LocalCluster
from server.cluster.protocol import Cluster
from server.jobs import preparation
from server.jobs.job import Job
from server.jobs.resources import Node, Run, Submission
from server.jobs.status import JobStatus, TextState
from server.jobs.verbs import cancel
from server.scheduler import Scheduler
from server.settings import Settings
from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.records import Records
from server.storage.runs import RunFolders
from tests.serving import TINY, Nowhere, status
from workers.contract.documents import parse_spec
from workers.contract.push import Push
from workers.contract.records import RECORD
from workers.planning.size import Resources
from workers.planning.text import Text

# The program gets RUN_DIR --attempt N, as workers.launch does, and writes its records without pushing any.
SUCCEEDS = """
import json, sys
from tests.serving import run_records
with open(sys.argv[1] + "/events.jsonl", "w") as file:
    file.writelines(json.dumps({**r, **({"attempt": int(sys.argv[3])} if "attempt" in r else {})}) + "\\n"
                    for r in run_records(5))
"""
COUNTS = f"import sys; open(sys.argv[1] + '/begun', 'a').write(sys.argv[3])\n{SUCCEEDS}"
CRASHES = "import sys; sys.exit('the disk is full')"
FAILS = """
import json, sys
from tests.serving import status
with open(sys.argv[1] + "/events.jsonl", "w") as file:
    file.write(json.dumps(status(1, "FAILED", error="the loss is not finite")) + "\\n")
sys.exit(1)
"""
_ENDS = (JobStatus.SUCCEEDED, JobStatus.FAILED)
SLEEPS = "import time; time.sleep(600)"


PREPARES = "sys.exit(0)"
TEXT = Text("of the tests", None)


def _python(code: str) -> Sequence[str]:
    root = str(Path(__file__).parent.parent.parent)
    return (sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}")


class House:
    """A store, folders and a scheduler on one home."""

    def __init__(self, home: Path, cluster: Cluster) -> None:
        self.home, self.cluster = home, cluster
        self.database = Database(home / "test.db")
        self.store = Store(self.database)
        self.records = Records(self.database)
        self.folders = RunFolders(Settings(home), self.store, self.records)

    def job(self, text: Text | None = None, **changes: Any) -> Job:
        job, _ = self.store.create(parse_spec(TINY | changes), text=text)
        self.folders.prepare(job)
        return job

    def running(self, **changes: Any) -> Job:
        """Return a job that runs, as far as the server knows."""
        job = self.job(**changes)
        now = datetime.now(UTC)
        return self.store.change(job.id, lambda job: job.admit(1, now).become(JobStatus.RUNNING, now))

    def program(self, code: str, preparation: str = PREPARES) -> Scheduler:
        return Scheduler(self.store, self.cluster, self.folders, _python(code), preparation=_python(preparation))

    def turn_until(self, scheduler: Scheduler, job: Job, *states: JobStatus) -> Job:
        deadline = time.monotonic() + 90
        while (now := self.store.get(job.id)).status not in states:
            assert time.monotonic() < deadline, (now, scheduler.obstacle)
            scheduler.turn()
            time.sleep(0.1)
        return now


@pytest.fixture
def house(tmp_path: Path, cluster: LocalCluster) -> Iterator[House]:
    house = House(tmp_path, cluster)
    yield house
    house.database.close()


def test_a_job_whose_records_never_arrived_is_settled_from_its_file(house: House) -> None:
    job = house.job()
    done = house.turn_until(house.program(SUCCEEDS), job, JobStatus.SUCCEEDED, JobStatus.FAILED)
    assert (done.status, done.step, done.attempt, done.world_size) == (JobStatus.SUCCEEDED, 5, 1, 1)
    assert len(house.records.read_after(job.id, 0, 100).records) == 8


def test_a_run_that_ends_without_a_report_is_started_again_and_fails_with_the_end_of_its_log(house: House) -> None:
    job = house.job(failures={"max_restarts": 1})
    failed = house.turn_until(house.program(CRASHES), job, JobStatus.FAILED)
    assert failed.error is not None
    assert "the disk is full" in failed.error
    assert (failed.attempt, failed.finished_at is not None) == (2, True)


def test_a_run_that_says_that_it_failed_is_not_started_again(house: House) -> None:
    failed = house.turn_until(house.program(FAILS), house.job(), JobStatus.FAILED)
    assert (failed.attempt, failed.error) == (1, "the loss is not finite")


def test_a_run_that_the_cluster_lost_is_started_again(house: House) -> None:
    job = house.running()  # and this cluster never saw it
    done = house.turn_until(house.program(SUCCEEDS), job, JobStatus.SUCCEEDED, JobStatus.FAILED)
    assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2)


def test_a_run_that_was_lost_too_often_fails(house: House) -> None:
    job = house.running(failures={"max_restarts": 0})
    failed = house.turn_until(house.program(SUCCEEDS), job, JobStatus.FAILED, JobStatus.SUCCEEDED)
    assert failed.status is JobStatus.FAILED
    assert "failures.max_restarts allows 0 restarts" in (failed.error or "")
    assert failed.attempt == 1


def test_a_job_that_was_admitted_before_the_server_died_is_submitted_by_the_next_one(house: House) -> None:
    job = house.job()
    house.store.change(job.id, lambda job: job.admit(1, datetime.now(UTC)))
    done = house.turn_until(house.program(SUCCEEDS), job, JobStatus.SUCCEEDED, JobStatus.FAILED)
    assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 1)


def test_a_job_whose_cluster_was_replaced_before_it_started_goes_on_as_the_next_attempt_and_runs_once(
    house: House,
) -> None:
    job = house.job()
    house.store.change(job.id, lambda job: job.admit(1, datetime.now(UTC), "session_of_a_cluster_that_is_gone"))
    done = house.turn_until(house.program(COUNTS), job, *_ENDS)
    assert (done.status, done.attempt, done.restarts) == (JobStatus.SUCCEEDED, 2, 1)
    assert done.session == house.cluster.session() != "session_of_a_cluster_that_is_gone"
    assert (house.folders.folder(job.id) / "begun").read_text() == "2"


def test_a_run_that_has_not_begun_to_report_is_ended_by_the_cluster(house: House) -> None:
    scheduler = house.program(SLEEPS)
    job = house.turn_until(scheduler, house.job(), JobStatus.STARTING)
    house.store.change(job.id, lambda job: cancel(job, datetime.now(UTC)))
    cancelled = house.turn_until(scheduler, job, JobStatus.CANCELLED, JobStatus.FAILED)
    assert cancelled.status is JobStatus.CANCELLED


def test_a_job_that_fits_no_cluster_is_refused(house: House) -> None:
    job = house.job(parallel={"gpus_per_worker": 8})
    refused = house.turn_until(house.program(SLEEPS), job, JobStatus.FAILED)
    assert "8 GPUs" in (refused.error or "")


@pytest.mark.parametrize("state", [JobStatus.QUEUED, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.STOPPING])
def test_while_nobody_reaches_the_cluster_no_job_changes(tmp_path: Path, state: JobStatus) -> None:
    house = House(tmp_path, Nowhere())
    job = house.store.change(house.job().id, lambda job: replace(job, status=state, attempt=1))
    scheduler = house.program(SUCCEEDS)
    scheduler.turn()
    after = house.store.get(job.id)
    assert (after.unreachable_since is not None) == state.is_active
    scheduler.turn()
    assert house.store.get(job.id) == after
    assert replace(after, unreachable_since=None) == job
    assert scheduler.obstacle == "there is no cluster in this test"
    house.database.close()


class Confused(Nowhere):
    """A cluster that fails in a way that nobody has thought of."""

    def ensure(self, *, runs_are_heard: bool) -> None:
        del runs_are_heard
        raise LookupError("data")


def test_a_failure_that_repeats_is_logged_once_and_named_as_what_keeps_jobs_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, Confused())
    scheduler = house.program(SUCCEEDS)
    for _ in range(3):
        scheduler.turn()
    assert caplog.text.count("a turn of the scheduler failed") == 1
    assert "LookupError('data')" in (scheduler.obstacle or "")
    house.database.close()


class Vague(Nowhere):
    """A cluster that says of submissions what it is told to say, and takes none."""

    says = Run.UNCLEAR

    def __init__(self) -> None:
        self.killed = list[str]()

    def kill(self, submission_id: str) -> None:
        self.killed.append(submission_id)

    def ensure(self, *, runs_are_heard: bool) -> None:
        pass

    def session(self) -> str:
        return "vague"

    def nodes(self, submissions: Mapping[str, Submission]) -> Sequence[Node]:
        del submissions
        return [Node(Resources(cpus=2))]

    def submission(self, submission_id: str) -> Submission:
        del submission_id
        return Submission(self.says)


def test_a_job_for_which_the_cluster_does_not_answer_changes_in_nothing_else_until_it_does(tmp_path: Path) -> None:
    cluster = Vague()
    house = House(tmp_path, cluster)
    job, scheduler = house.running(), house.program(SUCCEEDS)
    for _ in range(2):
        scheduler.turn()
        lost = house.store.get(job.id)
        assert lost.unreachable_since is not None
        assert replace(lost, unreachable_since=None) == job
    cluster.says = Run.RUNNING
    scheduler.turn()
    assert house.store.get(job.id) == job
    house.database.close()


def test_a_cluster_that_is_there_and_does_not_say_what_it_has_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Vague()
    monkeypatch.setattr(cluster, "nodes", Nowhere().nodes)
    house = House(tmp_path, cluster)
    house.job()
    scheduler = house.program(SUCCEEDS)
    with caplog.at_level("INFO"):
        for _ in range(3):
            scheduler.turn()
            assert scheduler.obstacle == "{}"  # what it was asked about
    assert caplog.text.count("waiting for the cluster") == 1
    house.database.close()


def test_a_job_whose_submission_arrived_without_an_answer_waits_for_none_once_its_attempt_is_there(
    tmp_path: Path,
) -> None:
    cluster = Vague()
    house = House(tmp_path, cluster)
    job, scheduler = house.job(), house.program(SUCCEEDS)
    scheduler.turn()
    waiting = house.store.get(job.id)
    assert (waiting.status, waiting.queue_reason is None) == (JobStatus.STARTING, False)
    cluster.says = Run.RUNNING
    scheduler.turn()
    there = house.store.get(job.id)
    assert (there.status, there.unreachable_since, there.queue_reason) == (JobStatus.STARTING, None, None)
    house.database.close()


def test_a_run_that_falls_silent_is_called_unreachable_until_it_is_heard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Vague()
    cluster.says = Run.RUNNING
    house = House(tmp_path, cluster)
    scheduler = house.program(SUCCEEDS)
    house.records.on_push = scheduler.hear
    job = house.running()
    house.records.take(job.id, Push(records=[RECORD.validate_python(status(1, "RUNNING"))], attempt=1))
    scheduler.turn()
    assert house.store.get(job.id).unreachable_since is None
    monkeypatch.setattr(scheduler_module, "SILENT", timedelta())
    scheduler.turn()
    assert house.store.get(job.id).unreachable_since is not None
    house.records.take(job.id, Push(records=[], attempt=0))  # nobody cares for an older attempt
    scheduler.turn()
    assert house.store.get(job.id).unreachable_since is not None
    house.records.take(job.id, Push(records=[], attempt=1))
    scheduler.turn()
    assert house.store.get(job.id).unreachable_since is None
    house.database.close()


class Listening(Nowhere):
    """A cluster that remembers what it was told."""

    def __init__(self) -> None:
        self.told = list[bool]()

    def ensure(self, *, runs_are_heard: bool) -> None:
        self.told.append(runs_are_heard)
        super().ensure(runs_are_heard=runs_are_heard)


def test_a_cluster_that_does_not_answer_is_told_whether_its_runs_do(tmp_path: Path) -> None:
    house = House(tmp_path, cluster := Listening())
    scheduler = house.program(SUCCEEDS)
    scheduler.turn()
    scheduler.hear(house.running().id)
    scheduler.turn()
    assert cluster.told == [False, True]
    house.database.close()


def test_a_driver_that_stays_after_its_job_has_ended_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, cluster := Vague())
    cluster.says = Run.RUNNING
    scheduler, job = house.program(SUCCEEDS), house.running()
    scheduler.turn()
    house.records.take(job.id, Push(records=[RECORD.validate_python(status(1, "SUCCEEDED"))], attempt=1))
    for _ in range(2):
        scheduler.turn()
    assert cluster.killed == []
    monkeypatch.setattr(scheduler_module, "LEAST_GRACE", timedelta())
    for _ in range(2):
        scheduler.turn()
    assert cluster.killed == [job.submission_id]
    house.database.close()


def test_a_driver_that_ends_with_its_job_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "LEAST_GRACE", timedelta())
    house = House(tmp_path, cluster := Vague())
    cluster.says = Run.RUNNING
    scheduler, job = house.program(SUCCEEDS), house.running()
    scheduler.turn()
    house.records.take(job.id, Push(records=[RECORD.validate_python(status(1, "SUCCEEDED"))], attempt=1))
    cluster.says = Run.ENDED
    scheduler.turn()
    assert cluster.killed == []
    house.database.close()


def test_a_submission_that_the_cluster_does_not_take_holds_up_no_other_job(tmp_path: Path) -> None:
    house = House(tmp_path, cluster := Vague())
    cluster.says = Run.UNKNOWN
    first = house.store.change(house.job().id, lambda job: job.admit(1, datetime.now(UTC)))
    second = house.running()
    house.program(SUCCEEDS).turn()
    assert house.store.get(first.id).status is JobStatus.STARTING
    assert house.store.get(second.id).status is JobStatus.QUEUED, "its attempt is lost and settled"
    house.database.close()


class Reluctant(Vague):
    """A cluster that answers, and takes submissions only once it is told to."""

    says = Run.UNKNOWN
    is_ready = False

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        if not self.is_ready:
            super().submit(submission_id, entrypoint, folder)
        self.says = Run.RUNNING


def test_a_submission_that_the_cluster_does_not_take_waits_however_long_and_says_why(tmp_path: Path) -> None:
    house = House(tmp_path, cluster := Reluctant())
    job, scheduler = house.job(), house.program(SUCCEEDS)
    scheduler.turn()
    waits = house.store.get(job.id)
    assert (waits.status, waits.attempt, waits.session) == (JobStatus.STARTING, 1, "vague")
    assert job.id in (waits.queue_reason or "")
    assert waits.unreachable_since is not None
    for _ in range(3):
        scheduler.turn()
    assert house.store.get(job.id) == waits
    cluster.is_ready = True
    for _ in range(2):
        scheduler.turn()
    taken = house.store.get(job.id)
    assert (taken.status, taken.queue_reason, taken.unreachable_since) == (JobStatus.STARTING, None, None)
    house.database.close()


class _Cutter(BaseHTTPRequestHandler):
    """Passes requests on to a head of Ray, and cuts the connection instead of passing on the answer to a submission."""

    head: str
    cut: list[str]

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kept = {name: self.headers[name] for name in ("Authorization", "Content-Type") if self.headers[name]}
        url = self.head + self.path
        answer = httpx.request(self.command, url, content=body, headers=kept, trust_env=False, timeout=60)
        if (self.command, self.path) == ("POST", "/api/jobs/"):
            self.cut.append(answer.text)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer.status_code)
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        pass


def test_a_submission_whose_answer_is_lost_is_looked_up_and_runs_once(tmp_path: Path, cluster: LocalCluster) -> None:
    state = cluster.process.find()
    assert state is not None
    _Cutter.head, _Cutter.cut = state.dashboard, []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Cutter) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        between = ExistingCluster(f"http://127.0.0.1:{proxy.server_port}", cluster.process.token)
        house = House(tmp_path, between)
        job = house.turn_until(house.program(COUNTS), house.job(), *_ENDS)
        between.close()
        proxy.shutdown()
        thread.join()
    assert (job.status, job.attempt, job.restarts) == (JobStatus.SUCCEEDED, 1, 0)
    assert (house.folders.folder(job.id) / "begun").read_text() == "1"
    assert len(_Cutter.cut) == 1
    house.database.close()


def test_what_is_tried_every_second_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stubborn = Vague()
    stubborn.says = Run.RUNNING  # it ends nothing
    house = House(tmp_path, stubborn)
    job = house.job()
    house.store.change(job.id, lambda job: cancel(job.admit(1, datetime.now(UTC)), datetime.now(UTC)))
    scheduler = house.program(SUCCEEDS)
    for _ in range(3):
        scheduler.turn()
    assert [record.getMessage() for record in caplog.records].count("kill ") == 1
    house.database.close()


NOTES = """
from pathlib import Path
with open(Path(sys.argv[1]).parent / "prepared", "a") as file:
    file.write("x")
"""
REFUSES = """
import json
from tests.serving import status
with open(sys.argv[1] + "/events.jsonl", "a") as file:
    file.write(json.dumps(status(1, "FAILED", attempt=0, error="a.txt: not UTF-8")) + "\\n")
sys.exit(1)
"""
IS_KILLED_ONCE = """
import os, signal
from pathlib import Path
if not Path(sys.argv[1], "tried").exists():
    Path(sys.argv[1], "tried").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
WAITS = "import time; time.sleep(600)"


def test_the_text_of_two_jobs_is_prepared_once_before_their_workers_start(house: House) -> None:
    first, second = house.job(TEXT), house.job(TEXT)
    scheduler = house.program(SUCCEEDS, NOTES)
    for job in (first, second):
        done = house.turn_until(scheduler, job, *_ENDS)
        assert (done.status, done.attempt, done.text_state) == (JobStatus.SUCCEEDED, 1, TextState.READY)
    assert (house.folders.folder("") / "prepared").read_text() == "x"
    assert sorted(house.store.get(job.id).preparations for job in (first, second)) == [0, 1]


def test_a_text_that_is_refused_fails_the_jobs_that_have_it_with_the_words_of_the_preparation(house: House) -> None:
    first, second = house.job(TEXT), house.job(TEXT)
    scheduler = house.program(SUCCEEDS, REFUSES)
    for job in (first, second):
        failed = house.turn_until(scheduler, job, *_ENDS)
        assert (failed.status, failed.error, failed.attempt) == (JobStatus.FAILED, "a.txt: not UTF-8", 0)
    scheduler.turn()
    assert house.store.preparing() == []


def test_a_preparation_that_is_killed_is_begun_again_under_another_name(house: House) -> None:
    job = house.job(TEXT)
    done = house.turn_until(house.program(SUCCEEDS, IS_KILLED_ONCE), job, *_ENDS)
    assert (done.status, done.preparations, done.restarts) == (JobStatus.SUCCEEDED, 2, 0)
    assert house.cluster.submission(f"{job.id}-data").exit_code == -9
    assert house.cluster.submission(f"{job.id}-data-2").exit_code == 0


def test_the_preparation_of_a_job_that_is_cancelled_is_ended_even_by_the_next_server_and_before_it_begins(
    house: House,
) -> None:
    job, deadline = house.job(TEXT), time.monotonic() + 90
    house.program(SUCCEEDS, WAITS).turn()
    assert house.cluster.submission(f"{job.id}-data").run in {Run.PENDING, Run.RUNNING}
    assert house.store.get(job.id).queue_reason == "preparing its text, 0 %"
    assert house.store.change(job.id, lambda job: cancel(job, datetime.now(UTC))).status is JobStatus.CANCELLED
    following = house.program(SUCCEEDS, WAITS)
    while house.store.preparing():
        assert time.monotonic() < deadline
        following.turn()
    assert house.cluster.submission(f"{job.id}-data").run is Run.ENDED
    house.store.delete(job.id)


def test_a_preparation_that_the_cluster_knows_is_not_submitted_again_after_a_restart(tmp_path: Path) -> None:
    house = House(tmp_path, cluster := Vague())
    cluster.says = Run.RUNNING
    job = house.store.change(house.job(TEXT).id, preparation.begin)
    house.program(SUCCEEDS).turn()  # the cluster would refuse
    after = house.store.get(job.id)
    assert (after.text_state, after.preparations) == (TextState.PREPARING, 1)
    cluster.says = Run.UNCLEAR
    house.program(SUCCEEDS).turn()
    assert house.store.get(job.id) == after
    house.database.close()
