"""The whole path: a served home, jobs by REST, real workers on a real Ray cluster, the page in a browser, and kills."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect

from server.cluster.process import ClusterProcess
from server.jobs.job import LEAST_GRACE
from server.settings import Settings
from server.storage.backup import back_up, restore
from tests.browser import browser, browser_page, complaints
from tests.system.service import Service, expect_every_step_once, records_of, wait_for
from tests.workers.small_job import document
from tests.workers.training.running import records
from workers.contract.records import CheckpointRecord, StatusRecord, StepRecord

__all__ = ["browser", "browser_page", "complaints"]  # fixtures

pytestmark = pytest.mark.timeout(900)  # a standstill is noticed long before

PHASE = {"seq_len": 32, "global_batch_size": 16, "micro_batch_size": 8, "lr": 2e-2, "warmup": 0.1}


def job_of(text: Path, steps: int, **changes: Any) -> dict[str, Any]:
    return document(text, workers=2, phases=[PHASE | {"steps": steps}], checkpoint={"every_steps": 20}) | changes


def listening(service: Service) -> set[str]:
    """The addresses on which the ranks listen."""
    sockets = [each for process in service.workers() for each in process.net_connections("inet")]
    return {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module")
def trained(service: Service, text: Path) -> dict[str, Any]:
    """A job of two workers that came in as YAML and ran to its end."""
    return service.until_ended(service.submit(job_of(text, 200, name="whole-path")))


def test_a_job_that_came_in_as_yaml_is_trained_by_two_workers(service: Service, trained: dict[str, Any]) -> None:
    assert (trained["status"], trained["error"]) == ("SUCCEEDED", None), service.log.read_text()
    assert (trained["world_size"], trained["attempt"], trained["step"]) == (2, 1, 200)
    expect_every_step_once(service, trained["id"], 200)


def test_what_each_rank_and_the_driver_printed_can_be_read(service: Service, trained: dict[str, Any]) -> None:
    path = f"/v1/jobs/{trained['id']}/logs"
    for rank in (0, 1):
        answer = service.http.get(path, params={"rank": rank, "follow": True}).raise_for_status()
        assert f"rank {rank} of 2 begins" in answer.text
    of_driver = service.http.get(path, params={"follow": True}).raise_for_status().text
    assert all(f"rank {rank} of 2 begins" in of_driver for rank in (0, 1)), "Ray shows what it showed before"
    none = service.http.get(path, params={"rank": 2})
    assert (none.status_code, "driver, rank-0, rank-1" in none.json()["detail"]) == (404, True)


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


@pytest.fixture(scope="module")
def endless(service: Service, text: Path) -> str:
    """A job that has begun to train."""
    job_id = service.submit(job_of(text, 100_000, name="endless"))
    service.until_step(job_id, 20)
    return job_id


def test_a_killed_server_stops_nothing_and_misses_nothing(service: Service, endless: str) -> None:
    ranks = {process.pid for process in service.workers()}
    assert listening(service) <= {"127.0.0.1", "::ffff:127.0.0.1"}
    service.kill()
    before = len(records_of(service, endless))
    wait_for(lambda: len(records_of(service, endless)) > before + 20, "training goes on without its server")
    service.start()
    assert {process.pid for process in service.workers()} <= ranks, "no rank was started anew"
    service.until_step(endless, before + 40)
    job = service.job(endless)
    assert (job["status"], job["attempt"]) == ("RUNNING", 1), service.log.read_text()
    assert service.metrics(endless)["steps"][: job["step"]] == list(range(1, job["step"] + 1))


def test_a_server_restored_elsewhere_finds_the_job_that_still_runs_and_takes_all_that_it_did(
    service: Service, endless: str, tmp_path: Path
) -> None:
    """The cluster stays where it is; the server's machine is lost, with all that came after the backup."""
    file, ranks = tmp_path / "backup.tar", {process.pid for process in service.workers()}
    back_up(service.settings, file)
    known = service.job(endless)["step"]
    service.until_step(endless, known + 10)
    service.kill()
    cluster = ClusterProcess(service.settings.ray)
    state = cluster.find()
    assert state is not None
    home, old = tmp_path / "home", service.settings
    assert restore(file, Settings(home)) > 0
    # At the address and with the certificate of the lost one, for that is where the run pushes.
    tls = {"tls_cert": old.tls_cert, "tls_key": old.tls_key}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_TOKEN", cluster.token)
        restored = Service(home, port=old.port, ray_address=state.dashboard, **tls)
    try:
        restored.until_step(endless, known + 40)
        job = restored.job(endless)
        assert (job["status"], job["attempt"]) == ("RUNNING", 1), restored.log.read_text()
        assert restored.metrics(endless)["steps"][: job["step"]] == list(range(1, job["step"] + 1))
        assert {process.pid for process in service.workers()} == ranks
        restored.stop()
    finally:
        restored.process.kill()
        service.start()
    assert {process.pid for process in service.workers()} == ranks, "no server has ended what runs"


def test_a_worker_that_is_told_to_end_saves_a_checkpoint_with_the_others_and_is_no_restart(
    service: Service, endless: str
) -> None:
    folder = service.settings.run_folder(endless)
    told_at = datetime.now(UTC)
    service.workers()[0].terminate()
    wait_for(lambda: service.job(endless)["attempt"] == 2, "the next attempt")
    assert service.job(endless)["restarts"] == 0
    of_first = [record for record in records(folder) if not isinstance(record, StepRecord)]
    saved = [record for record in of_first if isinstance(record, CheckpointRecord)][-1]
    assert saved.step == records_of(service, endless)[-1].step
    assert saved.time - told_at < LEAST_GRACE
    ends = [record.is_loss for record in of_first if isinstance(record, StatusRecord)]
    assert ends == [None, False]
    service.http.post(f"/v1/jobs/{endless}/cancel").raise_for_status()
    assert service.until_ended(endless)["status"] == "CANCELLED"


def test_a_cancelled_job_ends_at_a_checkpoint(service: Service, text: Path) -> None:
    job_id = service.submit(job_of(text, 100_000, name="cancelled"))
    service.until_step(job_id, 5)
    service.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    job = service.until_ended(job_id)
    assert job["status"] == "CANCELLED"
    assert job["checkpoint_step"] == job["step"]
    wait_for(lambda: not service.workers(), "the end of the ranks")


def test_a_job_is_saved_paused_resumed_cancelled_and_retried_and_every_step_is_there_once(
    service: Service, text: Path
) -> None:
    def ask(verb: str, *states: str) -> dict[str, Any]:
        service.http.post(f"/v1/jobs/{job_id}/{verb}").raise_for_status()
        wait_for(lambda: service.job(job_id)["status"] in states, f"{verb}: {states}")
        return service.job(job_id)

    job_id = service.submit(job_of(text, 100_000, name="asked", checkpoint={"every_steps": 100_000, "keep": 9}))
    service.until_step(job_id, 5)
    ask("checkpoint", "RUNNING")
    wait_for(lambda: service.job(job_id)["command"] == "none", "the checkpoint")
    saved = service.job(job_id)
    assert (saved["status"], saved["checkpoint_requests"]) == ("RUNNING", 1)
    service.until_step(job_id, saved["checkpoint_step"] + 10)
    paused = ask("pause", "PAUSED")
    assert paused["checkpoint_step"] == paused["step"]
    wait_for(lambda: not service.workers(), "the end of the ranks")
    ask("resume", "RUNNING")
    service.until_step(job_id, paused["step"] + 5)
    cancelled = ask("cancel", "CANCELLED")
    ask("retry", "RUNNING")
    service.until_step(job_id, cancelled["step"] + 5)
    job = ask("cancel", "CANCELLED")
    assert (job["attempt"], job["restarts"]) == (3, 0)
    taken = [record.step for record in records_of(service, job_id)]
    assert taken == list(range(1, job["step"] + 1)), "no step was computed twice"
    told = [r for r in records(service.settings.run_folder(job_id)) if isinstance(r, CheckpointRecord)]
    assert [record.step for record in told] == [
        saved["checkpoint_step"],
        paused["step"],
        cancelled["step"],
        job["step"],
    ]
    assert [record.request for record in told] == [1, 1, 1, 1]


def test_a_job_that_cannot_learn_fails_once_and_says_why(service: Service, text: Path) -> None:
    hopeless = PHASE | {"lr": 1e38, "steps": 60, "warmup": 0.0}
    job = service.until_ended(service.submit(job_of(text, 60, name="hopeless", phases=[hopeless])))
    assert job["status"] == "FAILED"
    assert "lower phases[0].lr" in job["error"]
    assert job["attempt"] == 1
