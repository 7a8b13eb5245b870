import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


def test_a_job_may_ask_for_no_restart_and_not_for_fewer() -> None:
    assert spec(failures={"max_restarts": 0}).failures.max_restarts == 0
    with pytest.raises(SpecError, match=r"failures\.max_restarts = -1: is less than 0"):
        spec(failures={"max_restarts": -1})


def test_a_worker_may_be_silent_for_a_minute_or_as_long_as_the_job_says_but_for_ten_seconds_at_least() -> None:
    assert spec().failures.hang_timeout_s == 60
    assert spec(failures={"hang_timeout_s": 10}).failures.hang_timeout_s == 10
    with pytest.raises(SpecError, match=r"failures\.hang_timeout_s = 9: is less than 10"):
        spec(failures={"hang_timeout_s": 9})
