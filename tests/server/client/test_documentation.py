"""The examples of docs/client.md do what they say."""

import re
from pathlib import Path

import pytest

from tests.serving import Served, run_records

PAGE = (Path(__file__).parents[3] / "docs" / "client.md").read_text()
FIRST, FOLLOWING, ASYNCHRONOUS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def _found_by_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGBATCH_HOME", str(served.settings.home))
    served.settings.server_file.write_text(f'{{"url": "{served.url}"}}')


def test_the_first_example_prints_what_stands_below_it(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(FIRST, "docs/client.md", "exec"), {})  # noqa: S102 -- our own page
    (printed,) = re.findall(r"It prints\n\n```\n(.*?)```", PAGE, re.DOTALL)
    assert capsys.readouterr().out == printed
    (job,) = served.http.get("/v1/jobs").json()["jobs"]
    assert (job["name"], job["status"], job["labels"]) == ("rates", "PAUSED", {"team": "nlp"})


def test_the_examples_that_follow_a_job_print_each_step(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(2))
    exec(compile(ASYNCHRONOUS, "docs/client.md", "exec"), {"job_id": job_id})  # noqa: S102 -- our own page
    assert capsys.readouterr().out == "1 10.0\n2 5.0\nSUCCEEDED\n"
    context = "from server.client import Client\nclient = Client()\n"
    exec(compile(context + FOLLOWING + "client.close()", "docs/client.md", "exec"), {"job_id": job_id})  # noqa: S102 -- as above
    assert capsys.readouterr().out == "1 10.0\n2 5.0\n"
