import math
from pathlib import Path
from typing import Any

import pytest

from tests.workers.small_job import PHASE
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.spec.job import JobSpec
from workers.planning.attempt import Attempt
from workers.planning.fit import USABLE, largest
from workers.planning.stage import zero_stage

VOCAB = 30_522


def spec(preset: str = "bert-large-uncased", workers: int = 8, **parallel: Any) -> JobSpec:
    phase: dict[str, Any] = PHASE | {"global_batch_size": 64, "micro_batch_size": 1}
    return parse_spec(
        {
            "name": "stage",
            "model": {"preset": preset},
            "data": {"corpus": [str(Path("/text.txt"))], "vocab": VOCAB},
            "phases": [phase],
            "parallel": {"workers": workers} | parallel,
        }
    )


def test_a_job_that_names_its_stage_gets_it_whatever_the_memory() -> None:
    for stage in range(4):
        assert zero_stage(spec(zero_stage=stage), VOCAB, 8, 1, 2) == stage


def least_memory(job: JobSpec, stage: int, workers: int = 8, compute_bytes: int = 4) -> int:
    return math.ceil(largest(Attempt(job, VOCAB, workers, stage, compute_bytes)).total / USABLE)


def test_a_stage_left_open_is_the_first_at_which_the_job_fits() -> None:
    job = spec()
    first, second = least_memory(job, 1), least_memory(job, 2)
    assert first > second > least_memory(job, 3)
    memories = [first, first - 1, second, second - 1, 1]
    assert [zero_stage(job, VOCAB, 8, memory, 4) for memory in memories] == [1, 2, 2, 3, 3]


def test_bert_large_takes_stage_1_on_a_gpu_of_80_gb_whether_alone_or_among_many() -> None:
    assert spec().parallel.zero_stage == "auto"
    assert {zero_stage(spec(workers=size), VOCAB, size, 80 << 30, 2) for size in (1, 2, 8, 64)} == {1}


@pytest.mark.parametrize("stage", [4, -1, "1", "fast"])
def test_another_stage_is_refused_with_the_stages_that_there_are(stage: object) -> None:
    with pytest.raises(SpecError, match=r"parallel\.zero_stage = .*write one of 'auto', 0, 1, 2 or 3"):
        spec(zero_stage=stage)


def test_a_switch_is_not_taken_for_stage_1() -> None:
    with pytest.raises(SpecError, match=r"parallel\.zero_stage = True: is not a whole number"):
        spec(zero_stage=True)
