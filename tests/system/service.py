"""`bigbatch serve` as a process of its own, with real workers on a real Ray cluster."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from server.cluster.process import ClusterProcess
from server.settings import Settings
from tests.serving import free_port
from workers.contract.records import RECORD, StepRecord
from workers.contract.tls import trusting_only

PATIENCE_S = 240


class Service:
    """`bigbatch serve` as a process of its own, on a home of its own."""

    def __init__(self, home: Path, port: int | None = None, **settings: Any) -> None:
        self.settings = Settings(home, port=port or free_port(), **settings)
        certificate = self.settings.tls_cert
        self.trusted = True if certificate is None else trusting_only(certificate.read_text())
        self.log = home.with_suffix(".log")
        self.start()

    def start(self, program: Sequence[str] = ("server",)) -> None:
        """Start the server by this module and its arguments, and wait until it is up."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command(program), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self.is_up, "the server is up")
        self.http = httpx.Client(
            base_url=self.settings.url,
            headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False,
            verify=self.trusted,
            timeout=20,
        )

    def _command(self, program: Sequence[str]) -> list[str]:
        names = ("home", "port", "tls_cert", "tls_key", "ray_address")
        values = {name: getattr(self.settings, name) for name in names}
        options = [(f"--{name.replace('_', '-')}", str(value)) for name, value in values.items() if value is not None]
        return [sys.executable, "-m", *program, "serve", *(part for option in options for part in option)]

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.settings.url}/healthz", trust_env=False, verify=self.trusted).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.http.close()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, self.log.read_text()

    @property
    def token(self) -> str:
        return self.settings.admin_token.read_text().strip()

    def submit(self, spec: dict[str, Any]) -> str:
        content, headers = yaml.safe_dump(spec), {"Content-Type": "application/yaml"}
        answer = self.http.post("/v1/jobs", content=content, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return job

    def until_step(self, job_id: str, step: int) -> None:
        self._wait(job_id, lambda job: job["step"] >= step, f"step {step}")

    def until_ended(self, job_id: str) -> dict[str, Any]:
        return self._wait(job_id, lambda job: job["finished_at"] is not None, f"the end of {job_id}")

    def _wait(self, job_id: str, is_over: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for a job as long as anything at all moves; a standstill fails with what the service has said."""
        job, seen, since = self.job(job_id), "", time.monotonic()
        while not is_over(job):
            if seen != (now := self._said(job_id)):
                seen, since = now, time.monotonic()
            assert time.monotonic() - since < PATIENCE_S, f"{PATIENCE_S} s of standstill before {what}: {job}\n{seen}"
            time.sleep(0.1)
            job = self.job(job_id)
        return job

    def _said(self, job_id: str) -> str:
        """The ends of the server's log, of the job's journal and of what Ray logged."""
        cluster = ClusterProcess(self.settings.ray)
        journal = self.settings.run_folder(job_id) / "events.jsonl"
        drivers = (cluster.temp_dir / "r/session_latest/logs").glob("job-driver-*")
        logs = [self.log, self.settings.ray / "ray.log", journal, *drivers]
        return "\n".join(f"{log}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs if log.exists())

    def metrics(self, job_id: str) -> dict[str, Any]:
        query = {"series": "loss,mlm_loss", "buckets": "4096"}
        metrics: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}/metrics", params=query).raise_for_status().json()
        return metrics

    def workers(self) -> list[psutil.Process]:
        """The living ranks of this home's cluster."""
        ours = ClusterProcess(self.settings.ray).processes()
        return [process for process in ours if "RayTrainWorker" in _command_of(process)]


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return ""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for: {what}"
        time.sleep(0.1)


def records_of(service: Service, job_id: str) -> list[StepRecord]:
    """The steps that the run wrote, the recomputed ones too."""
    lines = (service.settings.run_folder(job_id) / "events.jsonl").read_text().splitlines()
    records = [RECORD.validate_json(line) for line in lines]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    return [record for record in records if isinstance(record, StepRecord)]


def expect_every_step_once(service: Service, job_id: str, steps: int) -> None:
    every = list(range(1, steps + 1))
    assert service.metrics(job_id)["steps"] == every
    assert service.http.get(f"/v1/jobs/{job_id}/trust-ratios?columns=4096").json()["steps"] == every
