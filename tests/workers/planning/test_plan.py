import json
from dataclasses import asdict
from typing import Any

import pytest

from tests.workers.planning.planned import make_spec
from workers.contract.problems import SpecError
from workers.planning.attempt import Attempt
from workers.planning.fit import largest
from workers.planning.memory import fullest
from workers.planning.plan import plan
from workers.planning.rate import Rate

PHASES = [
    {"seq_len": 16, "global_batch_size": 64, "micro_batch_size": 4, "steps": 30, "lr": 1e-3},
    {"seq_len": 32, "global_batch_size": 32, "micro_batch_size": 2, "steps": 10, "lr": 1e-3},
]
RANGE = {"workers": {"min": 1, "max": 4}}


def test_the_largest_number_of_workers_is_planned_unless_another_is_named() -> None:
    spec = make_spec(phases=PHASES, parallel=RANGE)
    assert (plan(spec).workers, plan(spec).allowed, plan(spec).sizes) == (4, [1, 2, 4], [1, 2, 4, 8, 16])
    assert plan(spec, workers=2).workers == 2
    with pytest.raises(SpecError, match="cannot run on 3 workers"):
        plan(spec, workers=3)


def test_steps_rows_and_tokens_of_each_phase_and_of_all() -> None:
    found = plan(make_spec(phases=PHASES, parallel=RANGE))
    assert [phase.micro_batches for phase in found.phases] == [4, 4]
    assert [(phase.rows, phase.tokens) for phase in found.phases] == [(1920, 30_720), (320, 10_240)]
    assert found.tokens == 40_960
    assert found.epochs is None
    assert found.hours is None


@pytest.mark.parametrize(
    ("rates", "hours"),
    [
        (Rate(1024, None), [30 / 3600, 10 / 3600]),
        ({16: Rate(1024, 2)}, [15 / 3600, None]),
        ({16: Rate(1024, 4), 32: Rate(512, 4)}, [30 / 3600, 20 / 3600]),
    ],
)
def test_hours_are_tokens_by_the_rate_of_their_length_of_rows(rates: Any, hours: list[float | None]) -> None:
    found = plan(make_spec(phases=PHASES, parallel=RANGE), rates=rates)
    assert [phase.hours for phase in found.phases] == [None if each is None else pytest.approx(each) for each in hours]
    assert found.hours == (None if None in hours else pytest.approx(sum(each or 0 for each in hours)))


def test_every_stage_is_shown_beside_the_jobs_own() -> None:
    spec = make_spec(2, 3)
    found = plan(spec, memory_bytes=10**9)
    assert found.stage == 3
    assert [each.stage for each in found.stages] == [0, 1, 2, 3]
    for each in found.stages:
        assert each.memory == largest(Attempt(spec, 90, 2, each.stage))
        assert each.fits is True
    assert found.phases[0].memory == fullest(Attempt(spec, 90, 2, 3), spec.phases[0])
    assert found.stages[3].sent_bytes == [found.phases[0].sent_bytes]


def test_a_stage_that_is_left_open_is_the_first_that_fits() -> None:
    spec = make_spec(2, phases=PHASES, parallel={"workers": 2})
    assert plan(spec).stage == 1
    needed = {stage: largest(Attempt(spec, 90, 2, stage)).total for stage in (1, 2, 3)}
    assert plan(spec, memory_bytes=int(needed[2] / 0.89)).stage == 2
    assert plan(spec, memory_bytes=1000).stage == 3


def test_what_does_not_fit_says_so_with_what_would() -> None:
    spec = make_spec(2, 1, phases=PHASES)
    assert plan(spec).fits is None
    assert plan(spec, memory_bytes=10**9).remedies == []
    found = plan(spec, memory_bytes=int(largest(Attempt(spec, 90, 2, 1)).total))
    assert found.fits is False
    assert found.remedies


def test_a_plan_can_be_written_as_json() -> None:
    assert json.loads(json.dumps(asdict(plan(make_spec()))))["stages"][1]["memory"]["moments"] > 0


def test_one_worker_sends_nothing() -> None:
    found = plan(make_spec())
    assert found.phases[0].exchanges == []
    assert found.phases[0].sent_bytes == 0
