"""The command line of a training without a server."""

from pathlib import Path

import pytest
import yaml

from tests.workers.small_job import document
from workers.contract.arguments import read_arguments
from workers.contract.problems import SpecError
from workers.contract.run.folder import CheckpointName, RunFolder


@pytest.fixture
def job(text: Path, tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document(text)))
    return file


def test_a_run_lies_in_a_folder_of_its_own_name_unless_one_is_given(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = read_arguments([str(job)])
    assert (arguments.spec.name, arguments.run, arguments.as_json) == ("loop", tmp_path / "runs" / "loop", False)
    given = read_arguments([str(job), "--run", "mine", "--json"])
    assert (given.run, given.as_json) == (tmp_path / "mine", True)


def test_text_that_is_not_there_is_refused_by_its_field(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document(Path("nowhere.txt"))))
    with pytest.raises(SpecError) as refused:
        read_arguments([str(file)])
    (problem,) = refused.value.problems
    assert (problem.field, str(tmp_path / "nowhere.txt") in problem.value) == ("data.corpus[0]", True)


def test_a_command_line_without_a_file_ends_with_2_and_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_arguments([])
    assert "bigbatch train: error: the following arguments are required: file" in capsys.readouterr().err


def test_a_folder_of_first_weights_that_is_not_there_is_refused_by_its_field_unless_the_run_has_weights_already(
    text: Path, tmp_path: Path
) -> None:
    job, run = document(text), RunFolder(tmp_path / "run")
    job["model"] |= {"init_from": str(tmp_path / "nowhere")}
    file = tmp_path / "job.yaml"
    command_line = [str(file), "--run", str(run.path)]
    file.write_text(yaml.safe_dump(job | {"data": {"corpus": [str(text)]}}))
    with pytest.raises(SpecError, match=r"^model\.init_from = .* no readable config\.json"):
        read_arguments(command_line)
    file.write_text(yaml.safe_dump(job))
    run.store.put(CheckpointName(2, 1).manifest, b"{}")
    assert read_arguments(command_line).run == run.path
