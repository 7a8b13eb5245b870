import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.ranks import run_on_ranks
from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.run.folder import RunFolder
from workers.contract.sources import CorpusError
from workers.training.admission import admit, environment


def admit_refused(document: dict[str, Any], folder: Path, data: Path, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        admit(parse_spec(document), RunFolder(folder), data, 1, None)
    return str(caught.value)


def admit_with_a_copy_of_its_own(document: dict[str, Any], folder: Path) -> str:
    """Let each rank have another text."""
    text = folder / f"{dist.get_rank()}.txt"
    text.write_text(Path(document["data"]["corpus"][0]).read_text() + f"The end. Number {dist.get_rank()}.\n")
    document["data"]["corpus"] = [str(text)]
    return admit_refused(document, folder, folder / f"data-{dist.get_rank()}", CorpusError)


def admit_with_a_copy_of_the_same(document: dict[str, Any], folder: Path) -> str:
    text = folder / f"{dist.get_rank()}.txt"
    shutil.copy(document["data"]["corpus"][0], text)
    document["data"]["corpus"] = [str(text)]
    return admit(parse_spec(document), RunFolder(folder), folder / f"data-{dist.get_rank()}", 1, None).identity


def test_ranks_that_have_different_texts_are_refused_and_named(text: Path, tmp_path: Path) -> None:
    said = run_on_ranks(2, admit_with_a_copy_of_its_own, document(text, workers=2), tmp_path)
    assert said[0] == said[1]
    assert "the workers have different texts: rank 0 on" in said[0]
    assert "rank 1 on" in said[0]
    assert RunFolder(tmp_path).manifest().identity is None


def test_ranks_that_have_copies_of_one_text_train_together(text: Path, tmp_path: Path) -> None:
    first, second = run_on_ranks(2, admit_with_a_copy_of_the_same, document(text, workers=2), tmp_path)
    assert first == second == RunFolder(tmp_path).manifest().identity


def test_a_number_of_ranks_that_the_job_does_not_allow_is_refused_on_every_rank(text: Path, tmp_path: Path) -> None:
    job = document(text) | {"parallel": {"workers": {"min": 1, "max": 2}}}
    said = run_on_ranks(3, admit_refused, job, tmp_path / "run", tmp_path / "data", SpecError)
    assert ["this job cannot run on 3 workers" in each for each in said] == [True] * 3
    assert not (tmp_path / "run").exists()


def describe(_: str) -> dict[str, object]:
    return environment(torch.device("cpu"))


def test_every_rank_is_counted_in_what_an_attempt_ran_on() -> None:
    (devices, again) = (each["devices"] for each in run_on_ranks(2, describe, ""))
    assert devices == again
    assert isinstance(devices, dict)
    assert sum(devices.values()) == 2


def admit_without_an_index(document: dict[str, Any], folder: Path) -> str:
    """Let rank 1's machine be unable to write the index of the rows."""
    data = folder / f"data-{dist.get_rank()}"
    admit(parse_spec(document), RunFolder(folder), data, 1, None)
    (index,) = (path for path in data.glob("*/*") if path.is_dir())
    shutil.rmtree(index)
    if dist.get_rank() == 1:
        index.with_suffix(".lock").unlink()
        index.with_suffix(".lock").mkdir()
        return admit_refused(document, folder, data, CorpusError)
    said = admit_refused(document, folder, data, CorpusError)
    assert index.exists()
    return said


def test_where_one_machine_cannot_make_the_index_again_all_ranks_raise_its_error(text: Path, tmp_path: Path) -> None:
    first, second = run_on_ranks(2, admit_without_an_index, document(text, workers=2), tmp_path)
    assert first == second
    assert "the index of its rows cannot be written" in first
