"""What readers of one job's stream cost the server: the time of a push, and memory.

A real `bigbatch serve` without a cluster, and readers that are plain sockets in a process of their own: those that read
all they get while records are pushed, then those that ask for 30 MB of records and read nothing. One line of JSON for
each number of readers. Example:

    python benchmarks/streams.py --readers 0 50 200 500
"""

import argparse
import base64
import json
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from server.ports import free_ports
from server.settings import Settings
from workers.contract.push import ControlPlane
from workers.contract.records import tensor_set

TENSORS = 200
NAMES = [f"tensor.{number}" for number in range(TENSORS)]
VECTOR = base64.b64encode(bytes(4 * TENSORS)).decode()
PUSHES, PAUSE_S = 100, 0.05
LONG_LINE, LINES = "x" * 60_000, 500
NOBODY = "http://127.0.0.1:9"
"""Port 9 discards: no cluster answers there, and the job waits while its records are pushed."""
JOB: dict[str, Any] = {
    "name": "streams",
    "model": {"preset": "bert-tiny"},
    "data": {"corpus": ["builtin:austen"]},
    "phases": [{"seq_len": 64, "global_batch_size": 8, "micro_batch_size": 4, "steps": 100_000, "lr": 0.01}],
}


class Server:
    """A server of its own home, one job, and the records that are pushed for it."""

    def __init__(self, home: Path) -> None:
        [port] = free_ports(1)
        self.settings = Settings(home, port=port)
        options = ["--home", home, "--port", port, "--ray-address", NOBODY]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "server", "serve", *map(str, options)], stdout=subprocess.PIPE
        )
        _first_line(self.process)
        self._http = httpx.Client(base_url=self.settings.url, trust_env=False, timeout=60)
        self.token = self.settings.admin_token.read_text().strip()
        answer = self._http.post("/v1/jobs", json=JOB, headers={"Authorization": f"Bearer {self.token}"})
        self.job_id = answer.raise_for_status().json()["id"]
        control = (self.settings.run_folder(self.job_id) / "control.json").read_text()
        self._control, self._seq = ControlPlane.model_validate_json(control), 0

    def push(self, *records: dict[str, Any]) -> float:
        """Push records; return the seconds until they were acknowledged."""
        numbered = []
        for record in records:
            self._seq += 1
            numbered.append({"seq": self._seq, "time": datetime.now(UTC).isoformat()} | record)
        headers = {"Authorization": f"Bearer {self._control.token}"}
        begun = time.perf_counter()
        self._http.post(self._control.url, json={"records": numbered}, headers=headers).raise_for_status()
        return time.perf_counter() - begun

    @property
    def memory_mb(self) -> float:
        """What the process has resident."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)


def step(number: int) -> dict[str, Any]:
    """Make a step record with one number for each tensor in three vectors."""
    numbers = dict.fromkeys(("loss", "mlm_loss", "nsp_loss", "mlm_accuracy", "grad_norm", "clip_coef"), 0.5)
    vectors = dict.fromkeys(("trust_ratio", "weight_norm", "update_norm"), VECTOR)
    settings = {"phase": 0, "lr": 0.01, "skipped": False, "tokens_per_s": 1e4, "step_s": 0.1}
    return {"kind": "step", "step": number, "set": tensor_set(NAMES, [True] * TENSORS)} | numbers | vectors | settings


@contextmanager
def serving() -> Iterator[Server]:
    """Serve until the block ends."""
    with tempfile.TemporaryDirectory() as home:
        server = Server(Path(home))
        try:
            tensors = {"kind": "tensors", "names": NAMES, "adapted": [True] * TENSORS}
            server.push({"kind": "status", "status": "RUNNING", "attempt": 1}, tensors)
            yield server
        finally:
            server.process.terminate()
            server.process.wait()


@contextmanager
def readers(server: Server, count: int, *, stalled: bool = False) -> Iterator[None]:
    """Have so many readers of the job's stream in another process, which says when all have an answer."""
    order = {"url": server.settings.url, "token": server.token, "job": server.job_id, "count": count}
    program = [sys.executable, __file__, "--read", json.dumps(order | {"stalled": stalled})]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        _first_line(process)
        yield
        process.kill()


def read(url: str, token: str, job: str, count: int, *, stalled: bool) -> None:
    """Open streams and read all that comes, or of each stream only the beginning of the answer."""
    place = urlsplit(url)
    request = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
    selector, streams = selectors.DefaultSelector(), []
    for _ in range(count):
        streams.append(socket.create_connection((str(place.hostname), place.port or 80)))
        streams[-1].sendall(request.encode())
        streams[-1].recv(1)
        selector.register(streams[-1], selectors.EVENT_READ, streams[-1])
    print("ready", flush=True)
    while True:
        if stalled:
            time.sleep(1)
            continue
        for key, _ in selector.select():
            key.data.recv(2**20)


def _first_line(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has written a line."""
    if process.stdout is not None:
        process.stdout.readline()


def measure(count: int) -> dict[str, Any]:
    """Measure pushes while so many read, and the memory while so many do not."""
    with serving() as server:
        with readers(server, count):
            before_s, taken = psutil.Process(server.process.pid).cpu_times(), []
            for number in range(1, PUSHES + 1):
                taken.append(server.push(step(number)))
                time.sleep(PAUSE_S)
            after_s = psutil.Process(server.process.pid).cpu_times()
            reading_mb = server.memory_mb
        cpu_s = after_s.user + after_s.system - before_s.user - before_s.system
    with serving() as server:
        for _ in range(LINES // 10):
            server.push(*[{"kind": "log", "text": LONG_LINE}] * 10)
        with readers(server, count, stalled=True):
            before_mb = server.memory_mb
            time.sleep(5)
            stalled_mb = server.memory_mb
    return {
        "readers": count,
        "push_median_ms": round(1e3 * statistics.median(taken), 1),
        "push_p95_ms": round(1e3 * statistics.quantiles(taken, n=20)[-1], 1),
        "cpu_ms_a_push": round(1e3 * cpu_s / PUSHES, 1),
        "reading_mb": round(reading_mb),
        "stalled_before_mb": round(before_mb),
        "stalled_mb": round(stalled_mb),
    }


def main() -> None:
    """Measure for each number of readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, nargs="+", default=[0, 50, 200, 500])
    parser.add_argument("--read", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(**json.loads(given.read))
    for count in given.readers:
        print(json.dumps(measure(count)), flush=True)


if __name__ == "__main__":
    main()
