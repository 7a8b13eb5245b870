"""What the application adds to every answer."""

import shutil
import stat
from pathlib import Path

import pytest

from tests.serving import Served, serving


def test_every_answer_forbids_scripts_of_others(served: Served) -> None:
    for path in ("/", "/healthz", "/v1/jobs", "/v1/nothing", "/static/pages/app.js"):
        policy = served.http.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


def test_other_users_of_the_machine_read_nothing_in_the_home(served: Served) -> None:
    served.submit()
    files = [served.settings.home, *served.settings.home.glob("bigbatch.db*")]
    assert len(files) == 4  # the write-ahead log and its index, too
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files)


def test_a_run_folder_that_cannot_be_written_keeps_no_server_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path) as served:
        jobs = [served.submit(name=name)["id"] for name in ("bad", "good")]
        folder = served.settings.run_folder(jobs[0])
    shutil.rmtree(folder)
    folder.touch()
    with serving(tmp_path) as served:
        assert [served.job(job_id)["name"] for job_id in jobs] == ["bad", "good"]
    assert caplog.text.count("the job's run folder cannot be written") == 1
