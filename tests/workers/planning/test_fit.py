from dataclasses import replace
from typing import Any

import pytest

from tests.workers.planning.planned import make_spec
from workers.contract.assignments import set_fields
from workers.contract.documents import parse_spec
from workers.planning.attempt import Attempt
from workers.planning.fit import USABLE, fits, largest, remedies, sizes_that_divide

PHASES = [
    {"seq_len": 128, "global_batch_size": 1024, "micro_batch_size": 32, "steps": 9, "lr": 1e-3},
    {"seq_len": 512, "global_batch_size": 512, "micro_batch_size": 16, "steps": 1, "lr": 1e-3},
]


def attempt(stage: int = 1, workers: int = 2, **changes: Any) -> Attempt:
    parallel = {"workers": workers, "gpus_per_worker": 1}
    spec = make_spec(model={"preset": "bert-base-uncased"}, phases=PHASES, parallel=parallel, **changes)
    return Attempt(spec, 30_522, workers, stage)


def test_the_fullest_phase_decides() -> None:
    both, first = attempt(), attempt()
    alone = replace(first, spec=first.spec.model_copy(update={"phases": first.spec.phases[:1]}))
    assert largest(both).total > largest(alone).total


def test_a_tenth_of_a_device_is_left_to_others() -> None:
    needed = largest(attempt()).total
    assert fits(attempt(), int(needed / USABLE) + 1)
    assert not fits(attempt(), needed)


def test_every_number_of_workers_that_divides_the_batches_is_named_in_multiples_of_the_copies() -> None:
    assert sizes_that_divide(attempt().spec) == [1, 2, 4, 8, 16, 32]
    copies = attempt().spec.model_copy(update={"parallel": attempt().spec.parallel.model_copy(update={"replicate": 4})})
    assert sizes_that_divide(copies) == [4, 8, 16, 32]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_every_remedy_makes_the_job_fit_once_it_is_written_into_it(share: float) -> None:
    job = attempt()
    memory_bytes = int(largest(job).total * share / USABLE)
    found = remedies(job, memory_bytes)
    assert found
    for each in found:
        spec = parse_spec(set_fields(job.spec.model_dump(mode="json"), each.settings))
        stage = job.stage if spec.parallel.zero_stage == "auto" else each.settings.get("parallel.zero_stage", job.stage)
        changed = Attempt(spec, 30_522, spec.parallel.range.max, stage)
        assert fits(changed, memory_bytes)
        assert each.total_bytes == largest(changed).total


def test_each_kind_of_change_that_is_enough_by_itself_is_named_with_its_least_step() -> None:
    job = attempt()
    memory_bytes = int(largest(job).total * 0.9 / USABLE)
    kinds = [next(iter(each.settings)) for each in remedies(job, memory_bytes)]
    assert kinds[:2] == ["phases[1].micro_batch_size", "execution.activation_checkpointing"]


def test_where_no_single_change_is_enough_several_are_named_together() -> None:
    job = attempt(stage=0)
    (found,) = remedies(job, int(1.2e9))
    assert found.settings["parallel.zero_stage"] == 3
    assert found.settings["execution.activation_checkpointing"] is True
    assert len(found.settings) > 2


def test_where_nothing_helps_nothing_is_named() -> None:
    assert remedies(attempt(), 10**6) == []
