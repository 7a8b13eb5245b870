"""Server, database and network fail under a job that trains: its one attempt goes on, and each step is stored once."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from server.cluster.process import ClusterProcess
from server.settings import Settings
from tests.serving import free_port
from tests.system.faults.clock import Clock
from tests.system.faults.disk import Disk
from tests.system.faults.relay import Relay
from tests.system.service import Service, records_of, wait_for
from tests.workers.small_job import document
from workers.contract.run.folder import RunFolder

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

FAULT_S = 60
"""How long the database is locked, and the network cut."""
PHASE = {"seq_len": 32, "global_batch_size": 32, "micro_batch_size": 4, "lr": 2e-2, "warmup": 0.1, "steps": 10**6}
GARBAGE = b'no record \x00\xff {"seq":\n'
LOCKER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


class Training:
    """The one job of this file, which trains for as long as the tests take."""

    def __init__(self, service: Service, text: Path) -> None:
        changes: dict[str, Any] = {"phases": [PHASE], "checkpoint": {"every_steps": 500}, "export": {"at_end": False}}
        self.service, self._text = service, text
        self.id = service.submit(self.document(**changes))
        self.folder = RunFolder(service.settings.run_folder(self.id))
        service.until_step(self.id, 10)

    def document(self, **changes: Any) -> dict[str, Any]:
        return document(self._text, workers=1, name="faults", **changes)

    @property
    def lines(self) -> list[bytes]:
        """The whole lines of the journal."""
        return self.folder.journal.read_bytes().split(b"\n")[:-1]

    def stored(self) -> list[tuple[int, str, int | None, str]]:
        """Number, kind, step and data of every record in the database, in order."""
        with closing(sqlite3.connect(f"file:{self.service.settings.database}?mode=ro", uri=True)) as database:
            query = "SELECT seq, kind, step, data FROM records WHERE job_id = ? ORDER BY seq"
            return database.execute(query, (self.id,)).fetchall()

    def push(self, lines: Sequence[bytes], token: str | None = None) -> httpx.Response:
        """Push lines as the run does; return the answer."""
        control = self.folder.control()
        body = b'{"attempt":1,"records":[%b]}' % b",".join(lines)
        headers = {"Authorization": f"Bearer {token or control.token}", "Content-Type": "application/json"}
        return httpx.post(control.url, content=body, headers=headers, trust_env=False, timeout=20)

    @property
    def log(self) -> list[str]:
        """What the server has logged so far."""
        return self.service.log.read_text().splitlines()

    @property
    def driver_log(self) -> str:
        """What the run has said so far."""
        logs = ClusterProcess(self.service.settings.ray).temp_dir / "r/session_latest/logs"
        return (logs / f"job-driver-{self.id}-a1.log").read_text()

    def expect_to_train_on(self) -> None:
        """Expect further records in the journal, and wait for them."""
        reached = len(self.lines)
        wait_for(lambda: len(self.lines) >= reached + 30, "the run goes on")

    def expect_unharmed(self) -> None:
        """Wait until what the journal has now is stored, and some steps more; expect it to be stored once."""
        last = len(self.lines)
        wait_for(lambda: self.stored()[-1][0] >= last, f"record {last} is stored")
        self.service.until_step(self.id, self.service.job(self.id)["step"] + 20)
        job = self.service.job(self.id)
        assert (job["status"], job["attempt"], job["error"]) == ("RUNNING", 1, None)
        wait_for(lambda: self.service.job(self.id)["unreachable_since"] is None, "the attempt is heard of")
        assert len(self.service.workers()) == 1
        self.expect_every_step_once()

    def expect_every_step_once(self) -> None:
        """Compare the database with the journal, record by record."""
        stored = self.stored()
        written = [json.loads(line) for line in self.lines][: len(stored)]
        assert [seq for seq, *_ in stored] == [each["seq"] for each in written] == list(range(1, len(stored) + 1))
        assert [kind for _, kind, *_ in stored] == [each["kind"] for each in written]
        steps = [(step, json.loads(data)["loss"]) for _, _, step, data in stored if step is not None]
        assert steps == [(each["step"], each["loss"]) for each in written if each["kind"] == "step"]
        assert [step for step, _ in steps] == list(range(1, len(steps) + 1))


@pytest.fixture(scope="module")
def training(service: Service, text: Path) -> Iterator[Training]:
    """A job that trains under all faults; at the end it is cancelled, and nothing of it may be left."""
    training = Training(service, text)
    yield training
    service.http.post(f"/v1/jobs/{training.id}/cancel").raise_for_status()
    job = service.until_ended(training.id)
    assert (job["status"], job["attempt"], job["restarts"]) == ("CANCELLED", 1, 0)
    training.expect_every_step_once()
    assert len(training.stored()) == len(training.lines)
    assert {record.attempt for record in records_of(service, training.id)} == {1}
    wait_for(lambda: not service.workers(), "the end of the ranks")


def test_a_server_that_is_killed_and_comes_back_on_another_port_finds_the_job_training(training: Training) -> None:
    service, before = training.service, training.folder.control()
    service.kill()
    training.expect_to_train_on()
    wait_for(lambda: "the control plane does not take records, training goes on" in training.driver_log, "it says so")
    service.settings = Settings(service.settings.home, port=free_port())
    service.start()
    training.expect_unharmed()
    now = training.folder.control()
    assert (now.token, str(service.settings.port) in now.url) == (before.token, True)


def test_a_database_that_is_locked_for_a_minute_costs_nothing_but_the_wait(training: Training) -> None:
    service, logged = training.service, len(training.log)
    command = [sys.executable, "-c", LOCKER, str(service.settings.database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        assert locker.stdout
        assert locker.stdout.readline() == b"locked\n"
        until = time.monotonic() + FAULT_S
        stored, reached = training.stored(), len(training.lines)
        refused = service.http.post("/v1/jobs", json=training.document())
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert str(service.settings.database) in refused.json()["detail"]
        assert service.http.get("/readyz").status_code == 503
        time.sleep(max(0.0, until - time.monotonic()))
        assert training.stored() == stored
        assert len(training.lines) > reached
        assert service.job(training.id)["status"] == "RUNNING"
        locker.communicate()
    training.expect_unharmed()
    said = "\n".join(training.log[logged:])
    assert "is locked by another process" in said
    assert "the database can be written again" in said
    assert said.count("is not heard of") <= 1
    assert service.http.get("/readyz").status_code == 200


def test_a_network_that_is_cut_for_a_minute_costs_nothing_but_the_wait(training: Training) -> None:
    control, logged = training.folder.control(), len(training.log)
    relay = Relay(training.service.settings.port)
    try:
        way = control.url.replace(f":{training.service.settings.port}/", f":{relay.port}/")
        training.folder.put_control(control.model_copy(update={"url": way}))
        wait_for(lambda: relay.passed > 0, "the run pushes by way of the relay")
        relay.cut()
        reached = len(training.lines)
        time.sleep(FAULT_S)
        job = training.service.job(training.id)
        assert (job["status"], job["attempt"]) == ("RUNNING", 1)
        assert job["unreachable_since"] is not None
        assert len(training.lines) > reached
        relay.restore()
        training.expect_unharmed()
    finally:
        training.folder.put_control(control)
        relay.close()
    training.expect_unharmed()
    said = "\n".join(training.log[logged:])
    of_job = f"[server.scheduler] attempt=1 job_id={training.id}"
    assert f"the attempt is not heard of; it is waited for {of_job}" in said
    assert f"the attempt is there {of_job}" in said


def test_a_line_of_garbage_in_the_journal_costs_no_record(training: Training) -> None:
    with training.folder.journal.open("ab") as journal:
        journal.write(GARBAGE)
    wait_for(training.folder.rejected.exists, "the line is put aside")
    training.expect_unharmed()
    assert training.folder.rejected.read_bytes() == GARBAGE
    alerts = [json.loads(data) for _, kind, _, data in training.stored() if kind == "alert"]
    [alert] = [each for each in alerts if each["title"] == "The journal was mended"]
    assert f"Another process wrote {len(GARBAGE)} bytes into events.jsonl" in alert["detail"]


def test_batches_that_come_twice_or_in_another_order_are_stored_once(training: Training) -> None:
    lines = training.lines
    ahead = json.dumps(json.loads(lines[-1]) | {"seq": len(lines) + 10**6}).encode()
    batches = [lines[-20:], lines[-20:], lines[-40:-20], lines[:20], lines[-1:-20:-1], [ahead], [lines[5]] * 3]
    last = 0
    for batch in batches:
        answer = training.push(batch).raise_for_status().json()
        assert last <= answer["acknowledged"] <= len(training.lines)
        assert answer["command"] == "none"
        last = answer["acknowledged"]
    assert training.push(lines[-20:], token="of-somebody-else").status_code == 401
    training.expect_unharmed()


def test_a_second_server_on_the_home_is_refused_and_the_first_one_unaffected(training: Training) -> None:
    settings = training.service.settings
    files = (settings.server_file, settings.admin_token, settings.run_folder(training.id) / "control.json")
    before = [file.read_bytes() for file in files]
    command = [sys.executable, "-m", "server", "serve", "--home", str(settings.home), "--port", str(free_port())]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert f"another server uses {settings.home}; stop it" in second.stderr
    assert [file.read_bytes() for file in files] == before
    assert training.service.is_up()
    training.expect_unharmed()


def test_a_reader_of_the_stream_that_takes_nothing_for_a_minute_holds_nobody_up(training: Training) -> None:
    server = psutil.Process(training.service.process.pid)
    with closing(socket.socket()) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", training.service.settings.port))
        head = f"GET /v1/jobs/{training.id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        slow.sendall(f"{head}Authorization: Bearer {training.service.token}\r\n\r\n".encode())
        training.expect_unharmed()
        before = server.memory_info().rss
        until = time.monotonic() + FAULT_S
        last = len(training.lines)
        assert read_until(training, last) == list(range(1, last + 1))
        time.sleep(max(0.0, until - time.monotonic()))
        training.expect_unharmed()
        assert server.memory_info().rss - before < 100 * 2**20


def test_a_full_disk_of_the_database_costs_nothing_but_the_wait(training: Training, home_disk: Disk) -> None:
    service, logged = training.service, len(training.log)
    home_disk.fill()
    try:
        wait_for(lambda: service.http.get("/readyz").status_code == 503, "the server notices")
        refused = service.http.post("/v1/jobs", json=training.document())
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert "its disk is full" in refused.json()["detail"]
        training.expect_to_train_on()
    finally:
        home_disk.free()
    training.expect_unharmed()
    said = "\n".join(training.log[logged:])
    assert "cannot grow, because its disk is full" in said
    assert "the database can be written again" in said
    assert service.http.get("/readyz").status_code == 200


def test_a_database_that_is_gone_for_a_while_costs_nothing_but_the_wait(training: Training) -> None:
    service, logged = training.service, len(training.log)
    kept = service.settings.database.rename(service.settings.database.with_name("elsewhere.db"))
    try:
        wait_for(lambda: service.http.get("/readyz").status_code == 503, "the server notices")
        refused = service.http.post("/v1/jobs", json=training.document())
        assert refused.status_code == 503
        assert "it was deleted or replaced" in refused.json()["detail"]
        training.expect_to_train_on()
    finally:
        kept.rename(service.settings.database)
    training.expect_unharmed()
    said = "\n".join(training.log[logged:])
    assert "nothing is stored any more" in said
    assert "the database can be written again" in said


def test_a_clock_that_is_set_ends_neither_job_nor_cluster(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "clock")
    monkeypatch.setenv("PYTHONPATH", str(clock.folder))
    service = Service(tmp_path / "home")
    process = ClusterProcess(service.settings.ray)
    try:
        training = Training(service, text)
        cluster, workers = process.find(), service.workers()
        for ahead_s in (3600, 86400, 7200):
            clock.set(ahead_s)
            expect_time(training, ahead_s)
            training.expect_unharmed()
        service.kill()  # the next server finds the cluster, whatever its clock
        clock.set(0)
        service.start()
        expect_time(training, 0)
        training.expect_unharmed()
        assert (process.find(), service.workers()) == (cluster, workers)
        service.http.post(f"/v1/jobs/{training.id}/cancel").raise_for_status()
        assert service.until_ended(training.id)["attempt"] == 1
        service.stop()
        assert process.processes() == []
    finally:
        service.process.kill()
        process.stop()


def expect_time(training: Training, ahead_s: int) -> None:
    """Wait until the server and the worker both say that it is so much later than it is."""

    def says(told: datetime) -> bool:
        return told.timestamp() - time.time() == pytest.approx(ahead_s, abs=30)

    def server() -> datetime:
        return parsedate_to_datetime(training.service.http.get("/healthz").headers["Date"])

    wait_for(lambda: says(server()), "the server has this time of day")
    wait_for(lambda: says(datetime.fromisoformat(json.loads(training.lines[-1])["time"])), "the worker has it, too")


def read_until(training: Training, last: int) -> list[int]:
    """The numbers of the records of a job as another reader of the stream gets them."""
    numbers = list[int]()
    with training.service.http.stream("GET", f"/v1/jobs/{training.id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("id: "):
                numbers.append(int(line.removeprefix("id: ")))
            if numbers and numbers[-1] == last:
                break
    return numbers
