import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


@pytest.mark.parametrize(("field", "value"), [("compute", "fp16"), ("params", "bf16")])
def test_a_format_that_nothing_trains_in_is_refused_with_those_that_there_are(field: str, value: str) -> None:
    with pytest.raises(
        SpecError, match=rf"precision\.{field} = '{value}': is not one of the values allowed here.*fp32"
    ):
        spec(precision={field: value})


def test_left_open_the_hardware_decides_what_is_computed_in() -> None:
    assert (spec().precision.params, spec().precision.compute) == ("fp32", "auto")
