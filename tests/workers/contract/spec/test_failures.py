import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


def test_a_job_may_ask_for_no_restart_and_not_for_fewer() -> None:
    assert spec(failures={"max_restarts": 0}).failures.max_restarts == 0
    with pytest.raises(SpecError, match=r"failures\.max_restarts = -1: is less than 0"):
        spec(failures={"max_restarts": -1})
