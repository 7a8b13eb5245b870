import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


@pytest.mark.parametrize("field", ["every_steps", "keep"])
def test_a_run_writes_and_keeps_at_least_one_checkpoint(field: str) -> None:
    assert getattr(spec(checkpoint={field: 1}).checkpoint, field) == 1
    with pytest.raises(SpecError, match=rf"checkpoint\.{field} = 0: is less than 1"):
        spec(checkpoint={field: 0})


def test_milestones_are_counted_in_checkpoints_and_there_are_none_by_default() -> None:
    section = spec(checkpoint={"every_steps": 20, "keep_every": 3}).checkpoint
    assert [step for step in range(1, 200) if section.is_milestone(step)] == [60, 120, 180]
    assert not any(spec().checkpoint.is_milestone(step) for step in range(1, 1000))
