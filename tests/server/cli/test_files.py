"""Job files, as the command line reads them."""

import json
from pathlib import Path

from server.cli.files import read_job
from tests.server.cli.command import run_bigbatch


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    result = run_bigbatch("submit", tmp_path / "job.yaml")
    assert result.exit_code == 2
    assert "is not UTF-8 text" in result.stderr


def test_relative_paths_are_seen_from_the_folder_of_the_file(home: list[str], job_file: Path) -> None:
    job = json.loads(run_bigbatch("submit", job_file, "--json", *home).stdout)
    assert job["spec"]["data"]["corpus"] == [str(job_file.parent / "text.txt")]


def test_another_name_takes_the_place_of_the_files_own(job_file: Path) -> None:
    document, spec = read_job(job_file, "mine")
    assert (document["name"], spec.name) == ("mine", "mine")
    assert read_job(job_file)[1].name == "tiny"
