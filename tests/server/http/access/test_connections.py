import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from server.http import bodies
from server.http.access import connections
from tests.serving import Served, status


@contextmanager
def connected(served: Served, sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.settings.port), timeout=20) as connection:
        connection.sendall(sent)
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    heard = b""
    while piece := connection.recv(65_536):
        heard += piece
    return heard


def problem_in(heard: bytes) -> tuple[bytes, str]:
    head, _, body = heard.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    return head.split(b" ", 2)[1], json.loads(body)["type"]


@pytest.mark.parametrize("half", [b"", b"GET /v1/jobs HT", b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-"])
def test_a_connection_whose_request_does_not_come_is_closed(
    served: Served, half: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    with connected(served, half) as connection:
        assert problem_in(until_closed(connection)) == (b"408", "urn:bigbatch:problem:late-request")


def test_a_second_request_of_a_connection_has_to_come_in_time_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connected(served, request) as connection:
        assert b"200 OK" in connection.recv(65_536)
        connection.sendall(request[:10])
        assert b" 408 " in until_closed(connection)


def test_a_body_that_trickles_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.3)
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {served.token}\r\nContent-Length: 99\r\n"
    )
    with connected(
        served, head.encode() + b"Content-Type: application/json\r\nConnection: close\r\n\r\n{"
    ) as connection:
        assert problem_in(until_closed(connection)) == (b"408", "urn:bigbatch:problem:late-request")


def test_a_stream_is_not_closed_for_being_silent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    with served.http.stream("GET", "/v1/events") as answer:
        pieces = answer.iter_raw()
        assert next(pieces).startswith(b":")
        with connected(served) as silent:
            until_closed(silent)  # by now the wait of the stream's own connection would be over
        job_id = served.submit()["id"]
        assert job_id.encode() in next(pieces)


def test_a_reader_that_takes_nothing_has_the_server_prepare_little_of_what_it_is_to_get(served: Served) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, [status(1, "RUNNING")])
    logs = [{"seq": seq, "kind": "log", "time": "2026-01-31T12:00:00Z", "text": "x" * 60_000} for seq in range(2, 62)]
    for first in range(0, 60, 15):
        served.push(job_id, logs[first : first + 15])
    head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {served.token}\r\n\r\n"
    with connected(served, head.encode()) as stalled:
        assert stalled.recv(12) == b"HTTP/1.1 200"
        time.sleep(2)  # long enough to send all of the fifteen pages
        assert len(served.parts.feed._pages._tasks) <= 5


def test_more_connections_than_the_server_can_hold_are_refused_with_a_reason_and_others_go_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.http.get("/healthz").status_code == 200
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    with ExitStack() as stack:
        opened = [stack.enter_context(connected(served)) for _ in range(8)]
        heard = problem_in(until_closed(opened[-1]))
        assert heard == (b"503", "urn:bigbatch:problem:too-many-connections")
        assert served.http.get("/healthz").status_code == 200


def test_a_server_may_open_more_files_than_it_has_connections() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY:
        assert before[1] > connections.MOST_CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        connections.allow_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > connections.MOST_CONNECTIONS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
