"""A cluster that was there before; tests/system/test_elastic.py trains on one."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from server.cluster.existing import ExistingCluster, token_of_environment
from server.errors import ClusterUnreachableError, NoNodeError


class _Head(BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]]
    nodes: list[dict[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path.partition("?")[0], self.headers["Authorization"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": {"result": {"result": self.nodes}}}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def head() -> Iterator[str]:
    _Head.asked, _Head.nodes = [], [{"node_id": "n1", "state": "ALIVE"}]
    with ThreadingHTTPServer(("127.0.0.1", 0), _Head) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_cluster_that_answers_is_used_with_its_token_and_nothing_is_ended_on_leaving(head: str) -> None:
    cluster = ExistingCluster(f"{head}/", "secret")
    cluster.ensure()
    cluster.shutdown()
    cluster.close()
    assert _Head.asked == [("/api/v0/nodes", "Bearer secret")]


def test_a_cluster_without_a_token_is_shown_none(head: str) -> None:
    cluster = ExistingCluster(head)
    cluster.ensure()
    cluster.close()
    assert _Head.asked == [("/api/v0/nodes", None)]


def test_a_cluster_without_a_living_node_is_unwell_though_its_head_answers(head: str) -> None:
    _Head.nodes = []
    cluster = ExistingCluster(head)
    with pytest.raises(NoNodeError, match="answers, but none of its nodes is alive"):
        cluster.ensure()
    cluster.close()


def test_a_cluster_that_does_not_answer_is_unreachable() -> None:
    cluster = ExistingCluster("http://127.0.0.1:9")
    with pytest.raises(ClusterUnreachableError, match="does not answer"):
        cluster.ensure()
    cluster.close()


def test_the_token_is_where_ray_itself_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert token_of_environment() is None
    (tmp_path / "token").write_text("of the file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert token_of_environment() == "of the file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the variable")
    assert token_of_environment() == "of the variable"
