import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


def test_a_range_without_end_is_refused() -> None:
    with pytest.raises(SpecError, match=r"parallel\.workers"):
        spec(parallel={"workers": {"min": 1, "max": 1_000_000_000}})


def test_a_range_whose_ends_are_exchanged_is_refused() -> None:
    with pytest.raises(SpecError, match="min 4 is more than max 2"):
        spec(parallel={"workers": {"min": 4, "max": 2}})


def test_one_number_of_workers_is_a_range_of_its_own() -> None:
    workers = spec(parallel={"workers": 3}).parallel.range
    assert (workers.min, workers.max) == (3, 3)
