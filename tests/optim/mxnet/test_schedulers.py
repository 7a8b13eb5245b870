"""MXNet's schedulers, by what its documentation of behaviour says of each; the binary's own rates are in the cases."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim.mxnet import CosineScheduler, FactorScheduler, MultiFactorScheduler, PolyScheduler

ALL: list[tuple[Any, dict[str, Any]]] = [
    (FactorScheduler, {"step": 10}),
    (MultiFactorScheduler, {"step": [10]}),
    (PolyScheduler, {"max_update": 10}),
    (CosineScheduler, {"max_update": 10}),
]


def rates(scheduler: Any, last: int) -> list[float]:
    return [scheduler(n) for n in range(1, last + 1)]


@pytest.mark.parametrize(("made", "arguments"), ALL)
def test_a_warm_up_rises_in_a_line_to_the_base_rate(made: Any, arguments: dict[str, Any]) -> None:
    scheduler = made(**arguments, base_lr=0.5, warmup_steps=4, warmup_begin_lr=0.1)
    assert rates(scheduler, 4) == pytest.approx([0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(("made", "arguments"), ALL)
def test_a_constant_warm_up_stays_where_it_begins(made: Any, arguments: dict[str, Any]) -> None:
    scheduler = made(**arguments, base_lr=0.5, warmup_steps=4, warmup_begin_lr=0.1, warmup_mode="constant")
    assert rates(scheduler, 4) == [0.1, 0.1, 0.1, 0.5]


@pytest.mark.parametrize(("made", "arguments"), ALL)
def test_the_base_rate_is_a_hundredth_without_another(made: Any, arguments: dict[str, Any]) -> None:
    assert made(**arguments).base_lr == 0.01


def test_a_factor_counts_from_zero_and_stops_at_its_floor() -> None:
    scheduler = FactorScheduler(step=2, factor=0.5, base_lr=0.8, stop_factor_lr=0.15)
    assert rates(scheduler, 9) == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.15, 0.15, 0.15])


def test_a_factor_catches_up_with_updates_it_was_not_asked_about() -> None:
    assert FactorScheduler(step=2, factor=0.5, base_lr=0.8)(7) == pytest.approx(0.1)


def test_factors_fall_once_after_each_listed_update() -> None:
    scheduler = MultiFactorScheduler(step=[2, 5], factor=0.1, base_lr=1.0)
    assert rates(scheduler, 7) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert MultiFactorScheduler(step=[2, 5], factor=0.1, base_lr=1.0)(9) == pytest.approx(0.01)


@given(st.integers(0, 20), st.integers(1, 50), st.floats(0.5, 3), st.floats(0, 0.4))
def test_a_polynomial_falls_from_the_warm_up_to_the_last_update(
    w: int, length: int, power: float, final: float
) -> None:
    scheduler = PolyScheduler(max_update=w + length, base_lr=0.5, pwr=power, final_lr=final, warmup_steps=w)
    for n in range(max(w, 1), w + length + 1):
        left = (1 - (n - w) / length) ** power
        assert scheduler(n) == pytest.approx(final + (0.5 - final) * left, abs=1e-12)


def test_a_cosine_is_half_way_down_in_the_middle() -> None:
    scheduler = CosineScheduler(max_update=10, base_lr=1.0, final_lr=0.2, warmup_steps=2)
    assert [scheduler(n) for n in (2, 4, 6, 10)] == pytest.approx([1.0, 0.6 + 0.4 * math.sqrt(0.5), 0.6, 0.2])


@pytest.mark.parametrize("made", [PolyScheduler, CosineScheduler])
def test_past_its_end_a_decay_keeps_the_last_rate_it_computed(made: Any) -> None:
    scheduler = made(max_update=10, base_lr=1.0)
    half_way = scheduler(5)
    assert scheduler(11) == half_way
    assert made(max_update=10, base_lr=1.0)(11) == 1.0


@pytest.mark.parametrize("made", [PolyScheduler, CosineScheduler])
def test_a_decay_computes_from_the_rate_it_was_made_with(made: Any) -> None:
    scheduler, other = made(max_update=10, base_lr=1.0), made(max_update=10, base_lr=1.0)
    other.base_lr = 0.001
    assert rates(scheduler, 10) == rates(other, 10)


@pytest.mark.parametrize(
    ("made", "arguments", "error", "message"),
    [
        (FactorScheduler, {"step": 0}, ValueError, "step is 0; it must be 1 or more"),
        (FactorScheduler, {"step": 2.5}, TypeError, r"step is 2\.5; it must be an integer"),
        (FactorScheduler, {"step": 1, "factor": 1.5}, ValueError, r"factor is 1\.5"),
        (MultiFactorScheduler, {"step": [3, 3]}, ValueError, r"step is \[3, 3\]; it must be a rising list"),
        (MultiFactorScheduler, {"step": []}, ValueError, r"step is \[\]"),
        (MultiFactorScheduler, {"step": [1], "factor": 2}, ValueError, "factor is 2"),
        (PolyScheduler, {"max_update": 0}, ValueError, "max_update is 0"),
        (PolyScheduler, {"max_update": 1, "pwr": -1}, ValueError, "pwr is -1"),
        (CosineScheduler, {"max_update": "9"}, TypeError, "max_update is '9'"),
        (CosineScheduler, {"max_update": 9, "warmup_steps": -1}, ValueError, "warmup_steps is -1"),
        (CosineScheduler, {"max_update": 9, "warmup_begin_lr": 1.0}, ValueError, "at most base_lr, 0.01"),
        (CosineScheduler, {"max_update": 9, "warmup_mode": "slow"}, ValueError, "'linear' or 'constant'"),
        (CosineScheduler, {"max_update": 9, "base_lr": float("nan")}, ValueError, "base_lr is nan"),
        (CosineScheduler, {"max_update": 9, "base_lr": None}, TypeError, "base_lr is None; it must be a number"),
        (CosineScheduler, {"max_update": 9, "final_lr": float("nan")}, ValueError, "final_lr is nan"),
        (PolyScheduler, {"max_update": 9, "pwr": "x"}, TypeError, "pwr is 'x'"),
        (FactorScheduler, {"step": 1, "factor": "x"}, TypeError, "factor is 'x'"),
        (MultiFactorScheduler, {"step": 5}, TypeError, "step is 5; it must be a rising list"),
        (MultiFactorScheduler, {"step": [2.5]}, TypeError, r"a number of step is 2\.5; it must be an integer"),
    ],
)
def test_a_wrong_schedule_is_refused_by_name(
    made: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made(**arguments)
