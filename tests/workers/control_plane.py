"""The smallest control plane: enough to be pushed to, to command, to fail and to forget."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from workers.contract.push import Command


class ControlPlane:
    """A small HTTP server that acknowledges what it was sent, and can be told to fail or to forget."""

    def __init__(self, run_dir: Path) -> None:
        self.records: dict[int, dict[str, Any]] = {}
        self.fails, self.command, self.request, self.pushes = False, Command.NONE, 0, 0
        self.refuses: set[int] = set()
        self.refuses_alerts, self.refusal, self.names_record = False, 422, True
        self.refused: list[bytes] = []
        self.attempts: set[int] = set()
        self.pushed = threading.Condition()
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                authorized = self.headers["Authorization"] == "Bearer secret"
                status, reply = plane.take(body) if authorized else (401, {})
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(reply).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        control = {"url": f"http://127.0.0.1:{self.server.server_port}/events", "token": "secret"}
        (run_dir / "control.json").write_text(json.dumps(control))

    def take(self, body: bytes) -> tuple[int, dict[str, Any]]:
        push = json.loads(body)
        with self.pushed:
            self.pushes += 1
            self.attempts.add(push["attempt"])
            self.pushed.notify_all()
            if self.fails:
                return 503, {}
            for record in push["records"]:
                if record["seq"] in self.refuses and (record["kind"] != "alert" or self.refuses_alerts):
                    self.refused.append(body)
                    return self.refusal, {"seq": record["seq"]} if self.names_record else {}
            for record in push["records"]:
                if record["seq"] == len(self.records) + 1:
                    self.records[record["seq"]] = record
            return 200, {"acknowledged": len(self.records), "command": self.command, "request": self.request}

    def wait_for(self, count: int) -> None:
        with self.pushed:
            assert self.pushed.wait_for(lambda: len(self.records) >= count, timeout=20)

    def wait_for_pushes(self, count: int) -> None:
        with self.pushed:
            assert self.pushed.wait_for(lambda: self.pushes >= count, timeout=20)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
