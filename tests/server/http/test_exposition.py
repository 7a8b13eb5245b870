from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Served, run_records, status, step, tensors


def scraped(served: Served) -> dict[str, dict[tuple[str, ...], float]]:
    """What Prometheus's own parser reads: the values of each sample by its labels."""
    answer = served.http.get("/metrics").raise_for_status()
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_figures_need_a_token(served: Served) -> None:
    assert httpx.get(f"{served.url}/metrics", trust_env=False).status_code == 401


def test_a_server_without_jobs_has_all_figures(served: Served) -> None:
    found = scraped(served)
    assert set(found["bigbatch_jobs"].values()) == {0}
    assert ("QUEUED",) in found["bigbatch_jobs"]
    assert found["bigbatch_queue_wait_seconds"] == {(): 0}
    assert found["bigbatch_streams"] == {(): 0}
    assert found["bigbatch_scheduler_silence_seconds"][()] >= 0


def test_jobs_are_counted_by_status_and_running_ones_show_how_they_train(served: Served) -> None:
    ended, running, waiting = (str(served.submit(name=name)["id"]) for name in ("ended", "running", "waiting"))
    served.push(ended, run_records(3))
    served.push(running, [status(1, "RUNNING"), tensors(2), step(3, 1), step(4, 2, loss=3.25)])
    found = scraped(served)
    counts = {name: number for (name,), number in found["bigbatch_jobs"].items() if number}
    assert counts == {"SUCCEEDED": 1, "RUNNING": 1, "QUEUED": 1}
    assert found["bigbatch_job_step"] == {(running, "running"): 2}
    assert found["bigbatch_job_loss"] == {(running, "running"): 3.25}
    assert found["bigbatch_job_tokens_per_second"] == {(running, "running"): 1000}
    assert found["bigbatch_queue_wait_seconds"][()] > 0
    assert waiting not in str(found["bigbatch_job_loss"])


def test_pushes_are_timed_by_their_last_record_and_those_that_are_refused_are_counted(served: Served) -> None:
    job_id = str(served.submit()["id"])
    old: dict[str, Any] = status(1, "RUNNING") | {"time": "2026-01-31T12:00:00Z"}
    served.push(job_id, [old])
    served.push(job_id, [])
    for _ in range(2):
        with pytest.raises(httpx.HTTPStatusError):
            served.push(job_id, [{"kind": "poem"}])
    found = scraped(served)
    assert found["bigbatch_ingest_lag_seconds_count"] == {(): 1}
    assert found["bigbatch_ingest_lag_seconds_bucket"][("3600.0",)] == 0
    assert found["bigbatch_push_errors_total"] == {("422",): 2}
