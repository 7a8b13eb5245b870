import json
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.serving import TINY, Idle, Served, run_records, serving


@pytest.mark.parametrize("path", ["/", "/jobs/anything"])
def test_the_dashboard_is_one_page_for_every_path(served: Served, path: str) -> None:
    answer = served.http.get(path)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert f'data-home="{served.settings.home}"' in answer.text
    assert "{" not in answer.text  # every place is filled


def test_files_of_the_dashboard_are_open_and_asked_for_again_by_their_tag(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        answer = stranger.get("/static/pages/app.js")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")
        again = stranger.get("/static/pages/app.js", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
        assert stranger.get("/static/../app.py").status_code in {401, 404}
        assert stranger.get("/static/%2e%2e/app.py").status_code in {401, 404}


def test_a_server_without_a_cluster_is_healthy_but_not_ready_and_says_why_to_everybody(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        assert stranger.get("/healthz").status_code == 200
        answer = stranger.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] in {
        "there is no cluster in this test",
        "the scheduler has not asked the cluster yet",
    }


def _requests_that_write(served: Served, job_id: str) -> list[Callable[[], httpx.Response]]:
    control = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())
    worker = {"Authorization": f"Bearer {control['token']}"}
    body = {"records": run_records(1)}
    return [
        lambda: served.http.post("/v1/jobs", json=TINY),
        lambda: served.http.post(f"/v1/jobs/{job_id}/cancel"),
        lambda: httpx.post(control["url"], json=body, headers=worker, trust_env=False, timeout=20),
    ]


def test_while_another_process_holds_the_database_requests_wait_and_are_then_asked_to_come_again(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, Idle()) as served, ThreadPoolExecutor() as threads:
        job_id = served.submit()["id"]
        requests = _requests_that_write(served, job_id)
        with closing(sqlite3.connect(served.settings.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answers = list(threads.map(lambda request: request(), [*requests, lambda: served.http.get("/readyz")]))
            assert served.http.get("/healthz").status_code == 200
            assert served.job(job_id)["status"] in {"QUEUED", "STARTING"}  # reading goes on
        *refusals, ready = answers
        for answer in refusals:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json()["type"] == "urn:bigbatch:problem:database"
            assert "try again" in answer.json()["detail"]
        assert (ready.status_code, "Retry-After" in ready.headers) == (503, False)
        assert "bigbatch.db" in ready.json()["detail"]
        assert [request().status_code for request in requests] == [201, 200, 200]


def test_a_server_whose_database_was_deleted_accepts_nothing_and_says_why(tmp_path: Path) -> None:
    with serving(tmp_path, Idle()) as served:
        job_id = served.submit()["id"]
        requests = _requests_that_write(served, job_id)
        kept = served.settings.database.rename(tmp_path / "kept.db")
        answers = [request() for request in requests]
        assert [answer.status_code for answer in answers] == [503] * 3
        assert {"deleted or replaced" in answer.json()["detail"] for answer in answers} == {True}
        assert "deleted or replaced" in served.http.get("/readyz").json()["detail"]
        assert not served.settings.database.exists()
        kept.rename(served.settings.database)
        assert [request().status_code for request in requests] == [201, 200, 200]


class Stuck(Idle):
    """A cluster whose answer does not come until the test ends."""

    def __init__(self) -> None:
        self.answers = threading.Event()

    def ensure(self, *_: object, **__: object) -> None:
        self.answers.wait()


def test_a_server_whose_scheduler_is_stuck_is_not_ready(tmp_path: Path) -> None:
    cluster = Stuck()
    with serving(tmp_path, cluster) as served:
        try:
            served.parts.scheduler.turned_s -= 200
            said = served.http.get("/readyz").json()["detail"]
        finally:
            cluster.answers.set()
    assert re.search(r"the scheduler has not ended a turn for 2\d\d s", said)
