"""Keeps what a run of this version pushes, so that every later server is seen to take it.

    python -m tests.data.pushes.make NAME

writes `tests/data/pushes/NAME.jsonl`, a push a line. Make a new one for each release; never make an old one again.
"""

import json
import os
import socket
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from workers.contract.push import ControlPlane, PushReply
from workers.contract.run.folder import RunFolder
from workers.train import main

JOB = """\
name: small
model: {layers: 1, hidden: 8, heads: 2, intermediate: 16, max_positions: 32, dropout: 0.0}
data: {corpus: ["builtin:austen-valid"], validation: ["held-out.txt"], vocab: 300}
phases:
  - {seq_len: 32, global_batch_size: 8, micro_batch_size: 4, steps: 4, lr: 1.0e-2, warmup: 0.5}
evaluation: {every_steps: 2, sequences: 8}
checkpoint: {every_steps: 4, keep: 1}
"""


class Recorder(BaseHTTPRequestHandler):
    """Stands for a server: keeps each body, and acknowledges its records."""

    bodies: list[bytes] = []  # noqa: RUF012 -- of the one server of this program
    acknowledged = 0

    def do_POST(self) -> None:
        """Take a push."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if records := json.loads(body)["records"]:
            Recorder.acknowledged = records[-1]["seq"]
            Recorder.bodies.append(body)
        answer = PushReply(acknowledged=Recorder.acknowledged).model_dump_json().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def make(target: Path) -> None:
    """Train the job with a control plane that keeps all it gets, less what tells of this machine."""
    server = HTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)  # so that no path in the records is of this machine
        os.environ["BIGBATCH_HOME"] = "home"
        Path("job.yaml").write_text(JOB)
        Path("held-out.txt").write_text("\n\n".join(["She was happy. He was not. They spoke of it."] * 20))
        control = ControlPlane(url=f"http://127.0.0.1:{server.server_port}/v1/jobs/small/events", token="t" * 40)
        RunFolder(Path("runs/small")).put_control(control)
        if main(["job.yaml", "--run", "runs/small"]) != 0:
            sys.exit("the training failed")
        text = b"\n".join(Recorder.bodies).decode() + "\n"
        target.write_text(text.replace(f"{Path.cwd()}/", "").replace(socket.gethostname(), "a-host"))
    server.shutdown()


if __name__ == "__main__":
    make(Path(__file__).resolve().parent / f"{sys.argv[1]}.jsonl")
