import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.small_job import PHASE
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.spec.job import JobSpec
from workers.contract.spec.model import PRESETS
from workers.model.bert import build
from workers.planning.stage import SHARE_OF_STATES, parameters, states_bytes, zero_stage

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


@pytest.mark.parametrize("preset", PRESETS)
def test_the_parameters_are_as_many_as_those_of_the_model(preset: str) -> None:
    job = spec(preset)
    with torch.device("meta"):
        model = build(job.model, VOCAB, seed=0, pad_id=0)
    counted = parameters(job, VOCAB)
    assert counted.all == sum(p.numel() for p in model.parameters())
    assert {sum(p.numel() for p in layer.parameters()) for layer in model.bert.encoder.layer} == {counted.in_a_layer}


def test_a_job_that_names_its_stage_gets_it_whatever_the_memory() -> None:
    for stage in range(4):
        assert zero_stage(spec(zero_stage=stage), VOCAB, 8, 1, 2) == stage


def least_memory(job: JobSpec, stage: int, workers: int = 8, compute_bytes: int = 4) -> int:
    return math.ceil(states_bytes(job, stage, VOCAB, workers, compute_bytes) / SHARE_OF_STATES)


def test_a_stage_left_open_is_the_first_whose_states_leave_room_for_activations() -> None:
    job = spec()
    first, second = least_memory(job, 1), least_memory(job, 2)
    assert first > second > least_memory(job, 3)
    memories = [first, first - 1, second, second - 1, 1]
    assert [zero_stage(job, VOCAB, 8, memory, 4) for memory in memories] == [1, 2, 2, 3, 3]


def test_bert_large_takes_stage_1_on_a_gpu_of_80_gb_whether_alone_or_among_many() -> None:
    assert spec().parallel.zero_stage == "auto"
    assert {zero_stage(spec(workers=size), VOCAB, size, 80 << 30, 2) for size in (1, 2, 8, 64)} == {1}


def test_states_are_4_bytes_a_weight_4_a_gradient_and_8_for_both_moments_sharded_or_not() -> None:
    one = spec("bert-tiny", workers=1)
    count = parameters(one, VOCAB)
    assert states_bytes(one, 0, VOCAB, 1, 4) == 16 * count.all
    assert states_bytes(one, 0, VOCAB, 1, 2) == 18 * count.all
    eight = spec("bert-tiny")
    assert states_bytes(eight, 1, VOCAB, 8, 4) == (16 / 8 + 4 + 4) * count.all
    assert states_bytes(eight, 1, VOCAB, 8, 2) == (16 / 8 + 2 + 4) * count.all
    assert states_bytes(eight, 2, VOCAB, 8, 4) == (16 / 8 + 4) * count.all + 8 * count.outside


def test_copies_of_the_sharded_model_leave_each_worker_larger_shards() -> None:
    copies, all_shards = spec(replicate=4), spec()
    for stage in (1, 2, 3):
        shard = states_bytes(all_shards, stage, VOCAB, 2, 2)
        assert states_bytes(copies, stage, VOCAB, 8, 2) == shard > states_bytes(all_shards, stage, VOCAB, 8, 2)


@pytest.mark.parametrize("stage", [4, -1, "1", "fast"])
def test_another_stage_is_refused_with_the_stages_that_there_are(stage: object) -> None:
    with pytest.raises(SpecError, match=r"parallel\.zero_stage = .*write one of 'auto', 0, 1, 2 or 3"):
        spec(zero_stage=stage)


def test_a_switch_is_not_taken_for_stage_1() -> None:
    with pytest.raises(SpecError, match=r"parallel\.zero_stage = True: is not a whole number"):
        spec(zero_stage=True)
