"""The driver up to the point at which it would ask Ray; tests/system covers the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.run.folder import RunFolder


def launch(folder: RunFolder, attempt: int, workers: int, data: Path) -> subprocess.CompletedProcess[str]:
    options = ["--attempt", str(attempt), "--workers", str(workers), "--data", str(data)]
    command = [sys.executable, "-m", "workers.launch", str(folder.path), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)


def test_an_attempt_that_a_newer_one_has_followed_ends_and_changes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.put_spec(parse_spec(document(tmp_path / "text.txt")))
    folder.take_over(2)
    journal = folder.open_journal(2)
    done = launch(folder, attempt=1, workers=1, data=tmp_path / "data")
    journal.close()
    folder.lock.release()
    assert done.returncode == 1
    assert "attempt 1 is over" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder.manifest().attempt, folder.journal.read_bytes()) == (2, b"")


def test_a_number_of_workers_that_the_job_does_not_allow_fails_the_job_with_the_reason(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.put_spec(parse_spec(document(tmp_path / "text.txt")))
    done = launch(folder, attempt=1, workers=3, data=tmp_path / "data")
    assert done.returncode == 1
    (record,) = map(json.loads, folder.journal.read_text().splitlines())
    assert (record["status"], record["attempt"]) == ("FAILED", 1)
    assert "this job cannot run on 3 workers" in record["error"]


BROKEN = {
    "is missing": None,
    "is not UTF-8 text": b"name: \xff\xfe",
    "line 1, column 8 = (text): not valid": b"name: [",
}
LAUNCH_EACH = """
import sys
from workers import launch
sys.exit(sum(bool(launch.main([run, "--attempt", "1", "--workers", "1", "--data", "data"])) for run in sys.argv[1:]))
"""


def test_a_specification_that_is_missing_or_cannot_be_read_fails_the_job_with_the_reason(tmp_path: Path) -> None:
    folders = {says: RunFolder(tmp_path / str(number)) for number, says in enumerate(BROKEN)}
    for says, content in BROKEN.items():
        if content is not None:
            folders[says].store.put("spec.yaml", content)
    command = [sys.executable, "-c", LAUNCH_EACH, *(str(folder.path) for folder in folders.values())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == len(BROKEN), done.stderr
    assert "Traceback" not in done.stderr
    for says, folder in folders.items():
        (record,) = map(json.loads, folder.journal.read_text().splitlines())
        assert (record["status"], record["attempt"]) == ("FAILED", 1)
        assert says in record["error"]
