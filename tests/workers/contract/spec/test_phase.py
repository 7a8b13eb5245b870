import pytest

from tests.workers.contract.spec.small import PHASE, spec
from workers.contract.problems import SpecError
from workers.contract.spec.phase import Phase


@pytest.mark.parametrize("kind", ["linear", "constant"])
def test_a_power_that_no_decay_would_use_is_refused_at_once(kind: str) -> None:
    phase = {"seq_len": 64, "global_batch_size": 96, "steps": 3, "lr": 1e-3, "decay": {"kind": kind, "power": 0.5}}
    with pytest.raises(SpecError, match=r"phases\[0\]\.decay\.power = 0\.5"):
        spec(phases=[phase])


@pytest.mark.parametrize("change", [{"warmup": 1.1}, {"lr": 0}, {"seq_len": 7}, {"reset": ["moments"]}])
def test_what_no_phase_can_have_is_refused_by_its_field(change: dict[str, object]) -> None:
    (name,) = change
    with pytest.raises(SpecError, match=rf"phases\[0\]\.{name}"):
        spec(phases=[PHASE | change])


def phase(**changes: object) -> Phase:
    return spec(phases=[PHASE | changes]).phases[0]


@pytest.mark.parametrize(
    ("rule", "batch", "factor"),
    [("sqrt", 32_768, 1.0), ("sqrt", 8_192, 0.5), ("linear", 8_192, 0.25), ("linear", 65_536, 2)],
)
def test_a_rate_and_a_warm_up_that_were_found_at_one_batch_are_scaled_to_the_phases_own(
    rule: str, batch: int, factor: float
) -> None:
    scaled = {"base": 5e-3, "at_batch": 32_768, "rule": rule}
    found = phase(global_batch_size=batch, lr=scaled, warmup=scaled | {"base": 0.2})
    assert found.peak_lr == pytest.approx(5e-3 * factor, rel=1e-15)
    assert found.warmup_share == pytest.approx(0.2 * factor, rel=1e-15)


def test_the_papers_untuned_rule_can_be_written_as_two_rules() -> None:
    lr, warmup = {"base": 5e-3, "at_batch": 32_768, "rule": "sqrt"}, {"base": 0.2, "at_batch": 32_768, "rule": "linear"}
    found = phase(global_batch_size=512, micro_batch_size=8, lr=lr, warmup=warmup)
    assert (found.peak_lr, found.warmup_share) == pytest.approx((5 / (2**3 * 1e3), 1 / 320), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": {"base": 1e-3, "at_batch": 96}}, r"phases\[0\]\.lr\.rule = \(absent\): is required"),
        ({"lr": {"base": 1e-3, "at_batch": 96, "rule": "cube"}}, r"phases\[0\]\.lr\.rule = 'cube'.*'sqrt' or 'linear'"),
        ({"lr": {"base": 0, "at_batch": 96, "rule": "sqrt"}}, r"phases\[0\]\.lr\.base = 0: is not more than 0"),
        (
            {"lr": {"base": 1e308, "at_batch": 1, "rule": "linear"}},
            r"phases\[0\]\.lr = .*a learning rate beyond all numbers at a global batch of 96\. Remedy: lower base",
        ),
        ({"lr": {"bsae": 1, "at_batch": 96, "rule": "sqrt"}}, r"did you mean 'base'"),
        ({"lr": "fast"}, r"^phases\[0\]\.lr = 'fast': is not a number.*6\.0e-3\.$"),
        (
            {"warmup": {"base": 0.2, "at_batch": 8, "rule": "linear"}},
            r"phases\[0\]\.warmup = \{.*warm-up of 2\.4 of the",
        ),
        ({"warmup": 0.5, "hold": 0.6}, r"phases\[0\]\.hold = 0\.6: .*warm-up of 0\.5 .*write at most 0\.5"),
        ({"hold": 0.1, "decay": {"kind": "constant"}}, r"phases\[0\]\.hold = 0\.1: constant decay stays at lr"),
        ({"decay": {"kind": "exponential"}}, r"decay\.rate = None: exponential decay needs it.*rate: 0\.9"),
        ({"decay": {"kind": "cosine", "every_steps": 9}}, r"decay\.every_steps = 9: cosine decay has no every_steps"),
        ({"decay": {"kind": "constant", "final_lr": 1e-4}}, r"decay\.final_lr = 0\.0001: constant decay stays at lr"),
        ({"decay": {"final_lr": 0.1}}, r"phases\[0\]\.decay\.final_lr = 0\.1: is more than the learning rate"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_by_its_field_with_a_remedy(change: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        phase(**change)
