import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


@pytest.mark.parametrize("field", ["every_steps", "keep"])
def test_a_run_writes_and_keeps_at_least_one_checkpoint(field: str) -> None:
    assert getattr(spec(checkpoint={field: 1}).checkpoint, field) == 1
    with pytest.raises(SpecError, match=rf"checkpoint\.{field} = 0: is less than 1"):
        spec(checkpoint={field: 0})
