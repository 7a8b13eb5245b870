"""Where tokens must not be found while a job runs and after it has ended: in nothing that others may read or keep."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from server.cluster.process import ClusterProcess
from tests.system.service import Service
from tests.system.test_whole_path import job_of

pytestmark = pytest.mark.timeout(900)  # a standstill is noticed long before


def _secrets(service: Service, job_id: str) -> dict[str, str]:
    control = json.loads((service.settings.run_folder(job_id) / "control.json").read_text())
    made = service.http.post("/v1/tokens", json={"owner": "ada", "role": "reader"}).json()
    cluster = ClusterProcess(service.settings.ray)
    return {"admin": service.token, "job": control["token"], "reader": made["token"], "ray": cluster.token}


def _arguments(service: Service) -> Iterator[tuple[str, str]]:
    """The arguments of every process of the server and its cluster, which any user of the machine may list."""
    for process in [psutil.Process(service.process.pid), *ClusterProcess(service.settings.ray).processes()]:
        try:
            yield f"arguments of {process.name()}", " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue


def _metadata_of_ray(service: Service) -> Iterator[tuple[str, str]]:
    cluster = ClusterProcess(service.settings.ray)
    state = cluster.find()
    assert state is not None
    headers = {"Authorization": f"Bearer {cluster.token}"}
    for path in ("/api/jobs/", "/api/v0/actors?detail=1", "/api/v0/workers?detail=1", "/nodes?view=summary"):
        answer = httpx.get(f"{state.dashboard}{path}", headers=headers, trust_env=False, timeout=60)
        assert answer.is_success, path
        yield f"Ray's {path}", answer.text


def _written(service: Service, job_id: str) -> Iterator[tuple[str, str]]:
    """Logs, and what the server answers of the job."""
    cluster, run = ClusterProcess(service.settings.ray), service.settings.run_folder(job_id)
    logs = [path for path in (cluster.temp_dir / "r/session_latest/logs").rglob("*") if path.is_file()]
    assert any("job-driver" in path.name for path in logs)
    mine = [path for path in run.rglob("*") if path.suffix in {".json", ".jsonl", ".yaml"}]
    for file in [service.log, service.settings.ray / "ray.log", *logs, *mine]:
        if file.name != "control.json":
            yield str(file), file.read_text(errors="replace")
    job = f"/v1/jobs/{job_id}"
    for path in (job, f"{job}/records", "/v1/jobs", "/v1/audit", "/v1/tokens", "/docs", "/"):
        yield path, service.http.get(path).text


def test_no_token_is_in_logs_arguments_answers_or_the_metadata_of_ray(service: Service, text: Path) -> None:
    job_id = service.submit(job_of(text, 40, name="secrets", labels={"team": "nlp"}))
    service.until_step(job_id, 1)
    secrets = _secrets(service, job_id)
    told = [*_arguments(service), *_metadata_of_ray(service)]
    assert service.until_ended(job_id)["status"] == "SUCCEEDED"
    told += [*_written(service, job_id), *_metadata_of_ray(service)]
    leaks = [f"the token {name} is in {where}" for where, text in told for name, one in secrets.items() if one in text]
    assert leaks == []
