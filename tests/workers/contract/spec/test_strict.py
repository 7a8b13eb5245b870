from typing import Any

import pytest
from pydantic import ValidationError

from tests.serving import TINY
from tests.workers.contract.spec.small import spec
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError


@pytest.mark.parametrize(
    "section", ["model", "data", "optimizer", "parallel", "precision", "evaluation", "checkpoint", "failures"]
)
def test_every_section_refuses_a_key_that_it_does_not_know(section: str) -> None:
    with pytest.raises(SpecError, match=rf"{section}\.surprise = 1: there is no such key"):
        spec(**{section: {"surprise": 1}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(SpecError, match=r"optimizer\.eps"):
        spec(optimizer={"eps": value})


def test_a_specification_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        spec().seed = 1  # type: ignore[misc] # that it is refused is the test


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": [TINY["phases"][0] | {"steps": 10**30}]},
        {"phases": [TINY["phases"][0] | {"global_batch_size": 8 * 10**400}]},
        {"parallel": {"cpus_per_worker": 10**400}},
        {"checkpoint": {"every_steps": 2**31}},
        {"failures": {"max_restarts": 2**31}},
    ],
)
def test_numbers_beyond_any_job_are_refused_with_the_greatest_that_is_allowed(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="write a value of at most 2147483647"):
        parse_spec(TINY | changes)
