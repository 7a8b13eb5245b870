import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


@pytest.mark.parametrize("bounds", [[2, 1], [-1, 1]])
@pytest.mark.parametrize("name", ["weight_norm_bounds", "trust_ratio_bounds"])
def test_bounds_that_hold_no_number_are_refused(name: str, bounds: list[float]) -> None:
    with pytest.raises(SpecError, match=rf"optimizer\.{name}.*0 <= lower <= upper"):
        spec(optimizer={name: bounds})


def test_no_clipping_is_written_as_null() -> None:
    assert spec(optimizer={"max_grad_norm": None}).optimizer.max_grad_norm is None
