"""The whole path: a served home, jobs by REST, real workers on a real Ray cluster, the page in a browser, and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from playwright.sync_api import Page, expect

from server.cluster.process import ClusterProcess
from server.settings import Settings
from tests.browser import browser, browser_page, complaints
from tests.serving import free_port
from tests.workers.small_job import document
from workers.contract.records import RECORD, StepRecord

__all__ = ["browser", "browser_page", "complaints"]  # fixtures

PATIENCE_S = 240
PHASE = {"seq_len": 32, "global_batch_size": 16, "micro_batch_size": 8, "lr": 2e-2, "warmup": 0.1}


class Service:
    """`bigbatch serve` as a process of its own, on a home of its own."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home, port=free_port())
        self.log = home.with_suffix(".log")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "server", "serve", "--home", str(self.settings.home)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.settings.port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self.is_up, "the server is up")
        self.http = httpx.Client(
            base_url=self.settings.url, headers={"Authorization": f"Bearer {self.token}"}, trust_env=False, timeout=20
        )

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.settings.url}/healthz", trust_env=False).is_success
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
        wait_for(lambda: self.job(job_id)["step"] >= step, f"step {step}")

    def until_ended(self, job_id: str) -> dict[str, Any]:
        wait_for(lambda: self.job(job_id)["finished_at"] is not None, f"the end of {job_id}")
        return self.job(job_id)

    def metrics(self, job_id: str) -> dict[str, Any]:
        query = {"series": "loss,mlm_loss", "buckets": "4096"}
        metrics: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}/metrics", params=query).raise_for_status().json()
        return metrics

    def workers(self) -> list[psutil.Process]:
        """The living ranks of this home's cluster."""
        ours = ClusterProcess(self.settings.ray).processes()
        return [process for process in ours if "RayTrainWorker" in " ".join(process.cmdline())]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One server and one cluster for all tests of this file; at the end nothing of them may be left."""
    service = Service(tmp_path_factory.mktemp("whole-path") / "home")
    try:
        yield service
        service.stop()
        assert ClusterProcess(service.settings.ray).processes() == []
    finally:
        service.process.kill()
        ClusterProcess(service.settings.ray).stop()


def job_of(text: Path, steps: int, **changes: Any) -> dict[str, Any]:
    return document(text, workers=2, phases=[PHASE | {"steps": steps}], checkpoint={"every_steps": 20}) | changes


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


@pytest.fixture(scope="module")
def trained(service: Service, text: Path) -> dict[str, Any]:
    """A job of two workers that came in as YAML and ran to its end."""
    return service.until_ended(service.submit(job_of(text, 200, name="whole-path")))


def test_a_job_that_came_in_as_yaml_is_trained_by_two_workers(service: Service, trained: dict[str, Any]) -> None:
    assert (trained["status"], trained["error"]) == ("SUCCEEDED", None), service.log.read_text()
    assert (trained["world_size"], trained["attempt"], trained["step"]) == (2, 1, 200)
    expect_every_step_once(service, trained["id"], 200)


def test_the_model_learns_more_than_how_often_words_occur(service: Service, trained: dict[str, Any]) -> None:
    losses = service.metrics(trained["id"])["series"]["mlm_loss"]["last"]
    assert losses[0] > trained["unigram_entropy_nats"]
    assert sum(losses[-10:]) / 10 < trained["unigram_entropy_nats"]


def test_every_named_tensor_has_a_trust_ratio_at_every_step(service: Service, trained: dict[str, Any]) -> None:
    ratios = service.http.get(f"/v1/jobs/{trained['id']}/trust-ratios?columns=4096").json()
    assert len(ratios["names"]) == len(ratios["values"]) == 46
    assert "bert.encoder.layer.1.attention.self.query.weight" in ratios["names"]
    assert all(value is not None and value > 0 for row in ratios["values"] for value in row)


def test_the_page_shows_the_job_and_its_trust_ratios(
    service: Service, trained: dict[str, Any], browser_page: Page
) -> None:
    browser_page.goto(f"{service.settings.url}/?token={service.token}")
    browser_page.get_by_role("link", name="whole-path").click()
    expect(browser_page.get_by_text("succeeded").first).to_be_visible()
    expect(browser_page.locator(".name")).to_have_count(46)
    expect(browser_page.locator(".link")).to_have_text("ended")
    colours = """() => {
      const canvas = document.querySelector("canvas.cells");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size;
    }"""
    assert browser_page.evaluate(colours) > 20
    assert trained["id"] in browser_page.url


def test_the_checkpoint_is_whole_and_where_the_job_says(trained: dict[str, Any]) -> None:
    manifest = json.loads((Path(trained["checkpoint_path"]) / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (200, 2)


def test_a_killed_worker_costs_no_step(service: Service, text: Path) -> None:
    job_id = service.submit(job_of(text, 160, name="killed-worker"))
    service.until_step(job_id, 30)
    os.kill(service.workers()[0].pid, signal.SIGKILL)
    job = service.until_ended(job_id)
    assert (job["status"], job["error"]) == ("SUCCEEDED", None), service.log.read_text()
    expect_every_step_once(service, job_id, 160)
    written = [record.step for record in records_of(service, job_id)]
    assert len(written) > 160, "the steps behind the checkpoint were computed again"


def test_a_killed_server_stops_nothing_and_misses_nothing(service: Service, text: Path) -> None:
    job_id = service.submit(job_of(text, 300, name="killed-server"))
    service.until_step(job_id, 20)
    ranks = {process.pid for process in service.workers()}
    service.kill()
    before = len(records_of(service, job_id))
    wait_for(lambda: len(records_of(service, job_id)) > before + 20, "training goes on without its server")
    service.start()
    assert {process.pid for process in service.workers()} <= ranks, "no rank was started anew"
    job = service.until_ended(job_id)
    assert (job["status"], job["attempt"]) == ("SUCCEEDED", 1), service.log.read_text()
    expect_every_step_once(service, job_id, 300)
    assert len(records_of(service, job_id)) == 300


def test_a_cancelled_job_ends_at_a_checkpoint(service: Service, text: Path) -> None:
    job_id = service.submit(job_of(text, 100_000, name="cancelled"))
    service.until_step(job_id, 5)
    service.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    job = service.until_ended(job_id)
    assert job["status"] == "CANCELLED"
    assert job["checkpoint_step"] == job["step"]
    wait_for(lambda: not service.workers(), "the end of the ranks")


def test_a_job_that_cannot_learn_fails_once_and_says_why(service: Service, text: Path) -> None:
    hopeless = PHASE | {"lr": 1e38, "steps": 60, "warmup": 0.0}
    job = service.until_ended(service.submit(job_of(text, 60, name="hopeless", phases=[hopeless])))
    assert job["status"] == "FAILED"
    assert "lower phases[0].lr" in job["error"]
    assert job["attempt"] == 1
