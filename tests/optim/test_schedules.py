import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim import Schedule, untuned

rates = st.floats(1e-6, 1.0)
lengths = st.integers(2, 20_000)
ratios = st.floats(0.0, 0.99)


@given(rates, lengths, ratios, st.floats(0.1, 4.0))
def test_a_decay_anchored_at_the_warmup_is_continuous(lr: float, steps: int, warmup: float, power: float) -> None:
    schedule = Schedule(lr, steps, warmup, decay="poly", power=power)
    first = math.ceil(warmup * steps) or 1
    slope = lr / max(warmup * steps, 1)
    drop = lr * (1 - (1 - min(1.0, 1 / (steps * (1 - warmup)))) ** power)
    assert schedule(first) <= lr * (1 + 1e-12)
    assert schedule(first) >= lr - max(slope, drop) - 1e-12


KINDS: list[dict[str, Any]] = [
    {"decay": "linear"},
    {"decay": "poly", "power": 0.5},
    {"decay": "cosine"},
    {"decay": "exponential", "decay_rate": 0.9, "decay_steps": 250},
    {"decay": "constant"},
]


@given(rates, lengths, ratios, st.sampled_from(KINDS), st.sampled_from(["warmup", "start"]), st.floats(0.0, 1.0))
def test_a_rate_rises_to_its_peak_and_then_never_rises(
    lr: float, steps: int, warmup: float, kind: dict[str, Any], anchor: Any, hold: float
) -> None:
    held = 0.0 if kind["decay"] == "constant" else hold * (1 - warmup)
    schedule = Schedule(lr, steps, warmup, anchor=anchor, hold_ratio=held, **kind)
    curve = [schedule(step) for step in range(1, min(steps, 300) + 1)]
    rising = sum(step / steps < warmup for step in range(1, len(curve) + 1))
    assert all(0 <= rate <= lr * (1 + 1e-12) for rate in curve)
    assert all(a < b for a, b in pairwise(curve[:rising]))
    assert all(a >= b for a, b in pairwise(curve[rising:]))


def test_linear_decay_ends_at_the_final_rate_and_stays_there() -> None:
    schedule = Schedule(5e-3, 100, 0.2, final_lr=1e-5)
    assert schedule(10) == pytest.approx(2.5e-3)
    assert schedule(20) == pytest.approx(5e-3)
    assert schedule(60) == pytest.approx((5e-3 + 1e-5) / 2)
    assert schedule(100) == schedule(500) == 1e-5


def test_the_anchor_at_the_start_is_the_published_polynomial_and_jumps_down() -> None:
    lr, steps, warmup = 6e-3, 7038, 0.2843
    schedule = Schedule(lr, steps, warmup, decay="poly", power=0.5, anchor="start")
    for step in (1, 1000, 2000, 2001, 2002, 5000, 7037, 7038):
        progress = step / steps
        published = lr * progress / warmup if progress < warmup else lr * (1 - progress) ** 0.5
        assert schedule(step) == pytest.approx(published, rel=1e-15)
    assert schedule(2000) / lr == pytest.approx(0.9996, abs=1e-4)
    assert schedule(2001) / lr == pytest.approx(0.846, abs=1e-3)


def test_a_cosine_decay_is_half_a_wave_from_the_peak_to_the_final_rate() -> None:
    schedule = Schedule(2e-3, 100, 0.2, decay="cosine", final_lr=1e-4)
    for step in (20, 21, 60, 99, 100):
        wave = math.cos(math.pi * (step - 20) / 80)
        assert schedule(step) == pytest.approx(1e-4 + 1.9e-3 * (1 + wave) / 2, rel=1e-12)
    assert schedule(60) == pytest.approx(1.05e-3)
    assert schedule(100) == schedule(101) == pytest.approx(1e-4)


def test_an_exponential_decay_falls_by_one_factor_in_each_stretch_of_steps_towards_the_final_rate() -> None:
    schedule = Schedule(12e-3, 1000, 0.1, decay="exponential", decay_rate=0.9, decay_steps=250, final_lr=1e-3)
    for step in (100, 101, 350, 600, 1000):
        assert schedule(step) == pytest.approx(1e-3 + 11e-3 * 0.9 ** ((step - 100) / 250), rel=1e-12)
    assert schedule(350) - 1e-3 == pytest.approx(0.9 * 11e-3)


def test_a_hold_keeps_the_peak_and_the_decay_takes_the_steps_that_are_left() -> None:
    schedule = Schedule(1.0, 100, 0.2, hold_ratio=0.3)
    assert [schedule(step) for step in (10, 20, 35, 49, 50)] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert [schedule(step) for step in (60, 75, 99, 100)] == pytest.approx([0.8, 0.5, 0.02, 0.0])


def test_a_hold_to_the_last_step_leaves_no_decay() -> None:
    assert [Schedule(1.0, 4, 0.25, hold_ratio=0.75)(step) for step in (1, 2, 4, 5)] == [1.0] * 4


def test_after_a_hold_a_decay_that_counts_from_the_start_drops_by_what_it_missed() -> None:
    schedule = Schedule(1.0, 10, 0.2, decay="poly", power=0.5, anchor="start", hold_ratio=0.3)
    assert [schedule(step) for step in (4, 5, 6)] == pytest.approx([1.0, 0.5**0.5, 0.4**0.5])


def test_a_constant_schedule_only_warms_up() -> None:
    assert [Schedule(1.0, 10, 0.2, decay="constant")(step) for step in (1, 2, 9, 10, 11)] == [0.5, 1, 1, 1, 1]


def test_a_warmup_over_all_steps_ends_at_the_peak() -> None:
    assert [Schedule(1.0, 4, 1.0)(step) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"warmup_ratio": 1.5}, "warmup_ratio is 1.5"),
        ({"decay": "sine"}, "decay is 'sine'; it must be one of 'linear', 'poly', 'cosine', 'exponential', 'constant'"),
        ({"power": 0.5}, "power is 0.5; it must be 1 unless decay is 'poly'"),
        ({"anchor": "end"}, "anchor is 'end'"),
        ({"final_lr": 2.0}, "final_lr is 2.0; it must be from 0 to lr, 1.0"),
        (
            {"hold_ratio": 0.9, "warmup_ratio": 0.2},
            "hold_ratio is 0.9; it must be from 0 to what the warm-up leaves, 0.8",
        ),
        ({"hold_ratio": 0.1, "decay": "constant"}, "hold_ratio is 0.1; it must be 0 where decay is 'constant'"),
        ({"decay": "exponential", "decay_rate": 0.9}, "decay_steps is None; it must be given"),
        ({"decay": "exponential", "decay_steps": 9}, "decay_rate is None; it must be given"),
        (
            {"decay": "exponential", "decay_rate": 1.0, "decay_steps": 9},
            "decay_rate is 1.0; it must be between 0 and 1",
        ),
        ({"decay": "exponential", "decay_rate": 0.9, "decay_steps": 0}, "decay_steps is 0"),
        ({"decay_rate": 0.9}, "decay_rate is 0.9; it must be None unless decay is 'exponential'"),
    ],
)
def test_a_bad_setting_is_refused_by_name_value_and_remedy(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**({"lr": 1.0, "steps": 10} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("warmup_steps", [0, 1, 2])
def test_the_first_step_of_any_warm_up_changes_something_and_none_divides_by_zero(warmup_steps: int) -> None:
    rates = [Schedule(1.0, 10, warmup_steps / 10, decay="constant")(step) for step in (1, 2, 3)]
    assert rates == [1 / max(warmup_steps, 1), 1.0, 1.0]


def test_steps_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="step is 0"):
        Schedule(1.0, 10)(0)


def test_the_untuned_rule_gives_the_papers_table() -> None:
    for doublings, batch in enumerate((32768, 16384, 8192, 4096, 2048, 1024, 512)):
        lr, warmup = untuned(batch)
        assert lr == pytest.approx(5 / (2 ** (doublings / 2) * 1e3), rel=1e-12)
        assert warmup == pytest.approx(1 / (5 * 2**doublings), rel=1e-12)
    assert untuned(512)[1] == 1 / 320
    with pytest.raises(ValueError, match="batch is 0"):
        untuned(0)
