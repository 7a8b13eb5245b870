import pytest

from tests.workers.contract.spec.small import PHASE, spec
from workers.contract.problems import SpecError


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
