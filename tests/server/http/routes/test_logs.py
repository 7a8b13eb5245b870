import fcntl
from pathlib import Path

import pytest

from tests.serving import Served, run_records
from workers.contract.run.folder import RunFolder


def put_log(served: Served, job_id: str, text: str, rank: int | None = None, attempt: int = 1) -> Path:
    log = RunFolder(served.settings.run_folder(job_id)).log(attempt, rank)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)
    return log


@pytest.fixture
def job_id(served: Served) -> str:
    """A job that trains."""
    job_id = str(served.submit()["id"])
    served.push(job_id, run_records(3)[:3])
    return job_id


def test_the_end_of_a_log_is_read_by_rank_and_attempt(served: Served, job_id: str) -> None:
    put_log(served, job_id, "of the driver\n")
    put_log(served, job_id, "first\nsecond\nthird é\n", rank=0)
    path = f"/v1/jobs/{job_id}/logs"
    answer = served.http.get(path, params={"rank": 0, "lines": 2}).raise_for_status()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "second\nthird é\n"
    assert served.http.get(path).text == "of the driver\n"
    assert served.http.get(path, params={"attempt": 1, "rank": 0, "lines": 0}).text == ""
    assert served.http.get(path, params={"lines": 10_001}).status_code == 422


def test_the_log_of_the_preparation_of_its_text_is_that_of_attempt_0(served: Served, job_id: str) -> None:
    put_log(served, job_id, "of the driver\n")
    put_log(served, job_id, "text: tokenizing\n", attempt=0)
    path = f"/v1/jobs/{job_id}/logs"
    assert served.http.get(path, params={"attempt": 0}).text == "text: tokenizing\n"
    assert served.http.get(path).text == "of the driver\n"
    waits = str(served.submit(name="waits")["id"])
    put_log(served, waits, "text: tokenizing\n", attempt=0)
    assert served.http.get(f"/v1/jobs/{waits}/logs").text == "text: tokenizing\n"


def test_a_log_that_is_not_there_is_explained(served: Served, job_id: str) -> None:
    def why(job_id: str, **query: int) -> str:
        answer = served.http.get(f"/v1/jobs/{job_id}/logs", params=query)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:bigbatch:problem:log-not-found")
        return str(answer.json()["detail"])

    assert "is QUEUED and was never started" in why(served.submit(name="waits")["id"])
    assert "no log of a preparation of the text" in why(job_id, attempt=0)
    assert "has had 1 attempt so far" in why(job_id, attempt=2)
    assert "has no log on the server's machine" in why(job_id, rank=3)
    put_log(served, job_id, "")
    put_log(served, job_id, "", rank=0)
    assert "which has those of driver, rank-0. A rank on another node" in why(job_id, rank=3)


def test_a_log_is_followed_until_its_process_has_ended(served: Served, job_id: str) -> None:
    log = put_log(served, job_id, "before\nlast\n", rank=0)
    query = {"rank": "0", "follow": "true", "lines": "1"}
    with log.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with served.http.stream("GET", f"/v1/jobs/{job_id}/logs", params=query) as answer:
            pieces = answer.iter_text()
            assert next(pieces) == "last\n"
            file.write(b"more\n")
            assert next(pieces) == "more\n"
            assert served.parts.bell.streams == 1
            file.write(b"end\n")
            file.close()
            assert list(pieces) == ["end\n"]


def test_a_log_that_is_followed_ends_with_the_server(served: Served, job_id: str) -> None:
    log = put_log(served, job_id, "begun\n")
    with log.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with served.http.stream("GET", f"/v1/jobs/{job_id}/logs?follow=true") as answer:
            pieces = answer.iter_text()
            assert next(pieces) == "begun\n"
            served.parts.bell.close()
            assert list(pieces) == []
