"""A real server in a thread of the test, on a free port and in a folder of its own."""

import base64
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from server.cluster.protocol import Cluster
from server.errors import ClusterUnreachableError
from server.http.access.connections import PatientProtocol
from server.http.app import create_app
from server.http.context import Server
from server.jobs.resources import Node, Submission
from server.ports import free_ports
from server.settings import Settings
from workers.contract.records import tensor_set
from workers.planning.size import Resources

TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {"preset": "bert-tiny", "max_positions": 64},
    "data": {"corpus": ["builtin:austen"], "vocab": 1024},
    "phases": [{"seq_len": 64, "global_batch_size": 8, "micro_batch_size": 4, "steps": 20, "lr": 0.01}],
}
NAMES = ["embeddings.weight", "layer.0.bias", "layer.0.weight"]
ADAPTED = [True, False, True]


class Nowhere:
    """A cluster that nobody can reach: jobs wait, and whatever runs pushes by itself."""

    def ensure(self, *, runs_are_heard: bool) -> None:
        del runs_are_heard
        raise ClusterUnreachableError("there is no cluster in this test")

    def session(self) -> str:
        raise ClusterUnreachableError("there is no cluster in this test")

    def nodes(self, submissions: Mapping[str, Submission]) -> Sequence[Node]:
        raise ClusterUnreachableError(str(submissions))

    def submission(self, submission_id: str) -> Submission:
        raise ClusterUnreachableError(submission_id)

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        raise ClusterUnreachableError(f"{submission_id} {entrypoint} {folder}")

    def kill(self, submission_id: str) -> None:
        raise ClusterUnreachableError(submission_id)

    def shutdown(self) -> None:
        pass

    def close(self) -> None:
        pass


class Idle(Nowhere):
    """A cluster that says what it has, and with which the connection breaks off when it is given something to do."""

    def ensure(self, *, runs_are_heard: bool) -> None:
        pass

    def session(self) -> str:
        return "idle"

    def nodes(self, submissions: Mapping[str, Submission]) -> Sequence[Node]:
        del submissions
        return [Node(Resources(cpus=2))]


@dataclass(frozen=True)
class Served:
    """A running server as its clients see it: over HTTP and by its files."""

    settings: Settings
    http: httpx.Client
    """Shows the admin token."""
    parts: Server

    @property
    def url(self) -> str:
        return self.settings.url

    @property
    def token(self) -> str:
        return self.settings.admin_token.read_text().strip()

    def submit(self, **changes: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/jobs", json=TINY | changes)
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return answer

    def push(self, job_id: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Push records as the job's run would: with the address and token of its control file."""
        control = json.loads((self.settings.run_folder(job_id) / "control.json").read_text())
        headers = {"Authorization": f"Bearer {control['token']}"}
        answer = httpx.post(control["url"], json={"records": records}, headers=headers, trust_env=False)
        reply: dict[str, Any] = answer.raise_for_status().json()
        return reply


@contextmanager
def serving(home: Path, cluster: Cluster | None = None, port: int | None = None, **settings_: Any) -> Iterator[Served]:
    """Serve on `home` until the block ends; without a cluster or the address of one, jobs wait."""
    settings = Settings(home, port=port or free_port(), **settings_)
    app = create_app(settings, None if settings.ray_address else cluster or Nowhere())
    config = uvicorn.Config(
        app,
        port=settings.port,
        log_config=None,
        http=PatientProtocol,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def startup_and_tell(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets=sockets)
        ready.set()

    server.startup = startup_and_tell
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        assert ready.wait(30)
        headers = {"Authorization": f"Bearer {settings.admin_token.read_text().strip()}"}
        with httpx.Client(base_url=settings.url, headers=headers, trust_env=False, timeout=20) as http:
            yield Served(settings, http, app.state.server)
    finally:
        server.should_exit = True
        thread.join()


def free_port() -> int:
    [port] = free_ports(1)
    return port


def status(seq: int, state: str, **fields: Any) -> dict[str, Any]:
    """Make a status record."""
    return _record(seq, "status", status=state, **{"attempt": 1, "world_size": 1} | fields)


def tensors(seq: int, names: Sequence[str] = NAMES, adapted: Sequence[bool] = ADAPTED) -> dict[str, Any]:
    """Make the record that names the tensors."""
    return _record(seq, "tensors", names=list(names), adapted=list(adapted), set=tensor_set(names, adapted))


def packed(numbers: Sequence[float | None]) -> str:
    """Write numbers as a step record holds them."""
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


def unpacked(text: str) -> list[float | None]:
    """Read numbers as a step record holds them, with the seven digits of float32."""
    numbers = np.frombuffer(base64.b64decode(text), "<f4").tolist()
    return [float(f"{number:.7g}") if np.isfinite(number) else None for number in numbers]


def step(
    seq: int,
    number: int,
    *,
    loss: float | None = None,
    ratios: Sequence[float | None] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Make a step record; the loss falls with the step, and the numbers of the tensors tell the step."""
    usual = [number / 10, 1.0, None] if ratios is None else ratios
    vectors = {
        "trust_ratio": packed(usual),
        "weight_norm": packed([number + each for each in range(len(usual))]),
        "update_norm": packed([number / 100] * len(usual)),
    }
    return _record(
        seq,
        "step",
        step=number,
        phase=0,
        loss=10 / number if loss is None else loss,
        mlm_loss=9 / number,
        nsp_loss=1 / number,
        mlm_accuracy=0.1,
        lr=0.01,
        grad_norm=1.5,
        clip_coef=0.5,
        tokens_per_s=1000.0,
        **{"skipped": False, "step_s": 0.1, "set": tensor_set(NAMES, ADAPTED)} | vectors | fields,
    )


def run_records(steps: int) -> list[dict[str, Any]]:
    """Make all records of a run that succeeds."""
    begin = [status(1, "RUNNING", unigram_entropy_nats=6.0), tensors(2)]
    taken = [step(number + 2, number) for number in range(1, steps + 1)]
    return [*begin, *taken, status(steps + 3, "SUCCEEDED")]


def _record(seq: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "time": datetime.now(UTC).isoformat(), "kind": kind} | fields
