import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import httpx
import pytest

from server.client import client as client_module
from server.client.client import Client
from server.client.errors import ClientError, NoSuchJobError, RefusedError, UnreachableError
from tests.server.http.routes.test_logs import put_log
from tests.serving import TINY, Served, run_records, serving
from workers.contract.files import write_private


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.settings.home, served.url) as client:
        yield client


def test_a_server_is_found_by_its_home(served: Served) -> None:
    _announce(served)
    with Client(served.settings.home) as client:
        assert (client.url, client.token) == (served.url, served.token)
        assert client.answers("/healthz")
        assert not client.answers("/readyz")


def test_the_link_lets_a_browser_in(client: Client) -> None:
    page = httpx.get(client.link(), trust_env=False)
    assert page.status_code == 303
    assert "set-cookie" in page.headers


def test_a_job_is_found_by_the_beginning_of_its_id(served: Served, client: Client) -> None:
    ids = [served.submit(name=name)["id"] for name in ("first", "second")]
    common = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*ids, strict=True)))
    assert client.job(ids[0])["name"] == "first"
    assert client.job(ids[1][: len(common) + 1])["name"] == "second"
    with pytest.raises(NoSuchJobError, match="2 job ids begin with"):
        client.job(common)
    with pytest.raises(NoSuchJobError, match="`bigbatch jobs` lists the jobs"):
        client.job("zzz/../x")


def test_jobs_are_read_over_as_many_pages_as_there_are(served: Served, client: Client) -> None:
    names = [f"job-{number}" for number in range(5)]
    for name in names:
        served.submit(name=name)
    newest_first = names[::-1]
    assert [job["name"] for job in client.jobs(page=2)] == newest_first
    assert [job["name"] for job in client.jobs(limit=3, page=2)] == newest_first[:3]
    assert list(client.jobs(status="RUNNING")) == []


def test_each_verb_reaches_its_job(served: Served, client: Client) -> None:
    job_id = served.submit()["id"]
    told = [ask(job_id)["status"] for ask in (client.pause, client.resume, client.cancel, client.retry)]
    assert told == ["PAUSED", "QUEUED", "CANCELLED", "QUEUED"]
    served.push(job_id, run_records(3)[:3])
    assert client.checkpoint(job_id)["command"] == "checkpoint"


def test_a_lost_answer_does_not_submit_twice(served: Served, client: Client) -> None:
    with (
        _relay_that_loses_the_first_answer(served.settings.port) as port,
        Client(served.settings.home, f"http://127.0.0.1:{port}") as unlucky,
    ):
        job = unlucky.submit(TINY)
    assert [one["id"] for one in client.jobs()] == [job["id"]]


def test_a_refusal_carries_the_fields_that_are_wrong(client: Client) -> None:
    with pytest.raises(RefusedError) as refusal:
        client.submit(TINY | {"phases": []})
    assert refusal.value.exit_code == 2
    assert refusal.value.as_dict()["errors"][0]["field"] == "phases"


def test_a_wrong_token_is_refused_with_where_it_came_from_and_where_the_right_one_is(served: Served) -> None:
    with Client(served.settings.home, served.url, "wrong") as client:
        with pytest.raises(
            RefusedError, match=r"does not accept the token given with --token.*admin\.token"
        ) as refusal:
            list(client.jobs())
        assert refusal.value.exit_code == 2
        assert refusal.value.as_dict()["status"] == 401
        with pytest.raises(RefusedError, match="does not accept the token given with --token"):
            list(client.events("any"))


def test_without_a_token_the_file_that_should_hold_one_is_named(served: Served, tmp_path: Path) -> None:
    with Client(tmp_path, served.url) as client, pytest.raises(RefusedError, match=f"none in {tmp_path}/admin.token"):
        list(client.jobs())


def test_another_program_on_the_port_is_not_taken_for_a_server(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        with Client(tmp_path, f"http://127.0.0.1:{other.server_port}") as client:
            assert not client.answers("/healthz")
            assert not client.answers("/")  # it answers 200 there, with a page
            with pytest.raises(ClientError, match="is it a bigbatch server"):
                list(client.jobs())
        other.shutdown()
        thread.join()


def test_every_record_is_followed_once_over_a_restart_on_another_port(tmp_path: Path) -> None:
    records, losses = run_records(4), list[UnreachableError]()
    with serving(tmp_path) as served:
        _announce(served)
        job_id = served.submit()["id"]
        served.push(job_id, records[:3])
        client = Client(tmp_path)
        events = client.follow(job_id, losses.append)
        seen = [next(events) for _ in range(3)]
    with serving(tmp_path) as served, client:
        _announce(served)
        served.push(job_id, records[3:])
        seen += events
    numbers = [event.id for event in seen if event.id is not None]
    assert numbers == [record["seq"] for record in records]
    assert seen[-1].name == "end"
    assert len(losses) == 1


def test_a_server_that_stays_away_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", timedelta())
    with serving(tmp_path) as served:
        job_id = served.submit()["id"]
        served.push(job_id, run_records(2)[:2])
        client = Client(tmp_path, served.url)
        events = client.follow(job_id, lambda _: None)
        assert next(events).id == 1
    with client, pytest.raises(UnreachableError, match="bigbatch serve"):
        list(events)


def _announce(served: Served) -> None:
    """Write what `bigbatch serve` writes when it listens."""
    write_private(served.settings.server_file, json.dumps({"url": served.url, "pid": os.getpid()}))


@contextmanager
def _relay_that_loses_the_first_answer(port: int) -> Iterator[int]:
    """Pass bytes on to `port`, but hang up on the first caller when the answer to it has come."""

    class Relay(StreamRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                request = self.request.recv(65_536)
                while b"\r\n\r\n" not in request or len(request.split(b"\r\n\r\n", 1)[1]) < _length(request):
                    request += self.request.recv(65_536)
                server.sendall(request.replace(b"keep-alive", b"close"))
                answer = b"".join(iter(lambda: server.recv(65_536), b""))
            answered.append(answer)
            if len(answered) > 1:
                self.request.sendall(answer)

    answered: list[bytes] = []
    with ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        yield relay.server_address[1]
        relay.shutdown()
        thread.join()
    assert [answer.split()[1] for answer in answered] == [b"201", b"200"]


def _length(request: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", request, re.IGNORECASE)
    return int(found[1]) if found else 0


def test_an_id_that_the_terminal_could_not_decode_is_not_found(client: Client) -> None:
    with pytest.raises(NoSuchJobError, match="no job id begins with"):
        client.job("\udcc3\udca9")


def test_a_request_that_the_server_could_not_store_is_sent_again_when_the_server_asks_for_it(tmp_path: Path) -> None:
    keys: list[str] = []

    class Busy(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers["Idempotency-Key"])
            self.send_response(503 if len(keys) < 3 else 201)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"id": "1"}')

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Client(tmp_path, f"http://127.0.0.1:{server.server_port}", "token") as client:
            assert client.submit(TINY)["id"] == "1"
        server.shutdown()
        thread.join()
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_log_is_read_line_by_line_and_followed_to_its_end(served: Served, client: Client) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(3)[:3])
    with pytest.raises(RefusedError, match="no log on"):
        list(client.logs(job_id, rank=0))
    put_log(served, job_id, "one\ntwo\nthree", rank=0)
    assert list(client.logs(job_id[:11], rank=0, lines=2)) == ["two", "three"]
    assert list(client.logs(job_id, rank=0, attempt=1, follow=True)) == ["one", "two", "three"]
