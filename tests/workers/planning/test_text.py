from pathlib import Path
from typing import Any

import pytest

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec
from workers.corpus.prepare import prepare
from workers.planning.text import SMALL_BYTES, epochs, prepared, text_of
from workers.samples.dataset import open_phase


def job(text: Path, **data: Any) -> JobSpec:
    plain = document(text)
    return parse_spec(plain | {"data": plain["data"] | data})


def test_the_prepared_text_of_a_job_is_found_by_sizes_and_settings(text: Path, tmp_path: Path) -> None:
    spec = job(text)
    assert prepared(spec.data, tmp_path) is None
    prepare(spec.data, tmp_path)
    found = prepared(spec.data, tmp_path)
    assert found is not None
    assert found.vocab_size <= 90
    others: list[dict[str, Any]] = [{"vocab": 80}, {"lowercase": False}, {"deduplicate": True}, {"validation": 0.5}]
    assert [prepared(job(text, **other).data, tmp_path) for other in others] == [None] * 4


def test_text_of_another_size_or_of_other_machines_is_not_taken(text: Path, tmp_path: Path) -> None:
    prepare(job(text).data, tmp_path)
    longer = tmp_path / "longer.txt"
    longer.write_text(text.read_text() + "One more line.\n")
    assert prepared(job(longer).data, tmp_path) is None
    assert prepared(job(tmp_path / "absent.txt").data, tmp_path) is None


@pytest.mark.parametrize(("packing", "least"), [(True, 0.8), (False, 0.5)])
def test_epochs_are_at_most_those_of_full_rows(text: Path, tmp_path: Path, packing: bool, least: float) -> None:
    spec = job(text, packing=packing)
    folder = prepare(spec.data, tmp_path)
    phase, found = spec.phases[0], prepared(spec.data, tmp_path)
    assert found is not None
    real = phase.steps * phase.global_batch_size / len(open_phase(folder, spec, phase))
    assert least * epochs(phase, spec.data, found) < real <= epochs(phase, spec.data, found)


def test_jobs_have_the_same_text_where_files_vocabulary_and_settings_are_the_same(text: Path, tmp_path: Path) -> None:
    same = [job(text), job(text, mask_probability=0.3), job(text, packing=True)]
    assert len({text_of(each.data).key for each in same}) == 1
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n")
    others: list[dict[str, Any]] = [
        {"vocab": 80},
        {"vocab": str(vocabulary)},
        {"lowercase": False},
        {"deduplicate": True},
        {"validation": 0.5},
        {"validation": ["builtin:austen-valid"]},
        {"encoding_errors": "replace"},
    ]
    assert len({text_of(each.data).key for each in [job(text), *(job(text, **other) for other in others)]}) == 8


def test_a_file_that_has_changed_is_another_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Tea is hot.")
    before = text_of(job(path).data)
    path.write_text("Tea is old.")
    assert (text_of(job(path).data).key == before.key, before.size_bytes, before.is_small) == (False, 11, True)


def test_only_text_of_which_all_is_here_can_be_small(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * (SMALL_BYTES + 1))
    assert not text_of(job(path).data).is_small
    assert text_of(job(tmp_path / "absent.txt").data).size_bytes is None
    remote = job(path, corpus=["s3://bucket/texts"]).data
    assert (text_of(remote).size_bytes, text_of(remote).key == text_of(remote).key) == (None, True)
    assert text_of(job(path, corpus=["builtin:austen"]).data).is_small, "a demonstration need not wait for a process"
