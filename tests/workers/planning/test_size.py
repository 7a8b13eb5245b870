from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.spec.job import JobSpec
from workers.planning.size import check_size, processors, shortage, size_that_fits


def _spec(batch: int = 24, **parallel: Any) -> JobSpec:
    phase = {"seq_len": 64, "global_batch_size": batch, "micro_batch_size": 2, "steps": 3, "lr": 1e-3}
    document = {"name": "tiny", "data": {"corpus": ["builtin:austen"]}, "phases": [phase], "parallel": parallel}
    return parse_spec(document)


def test_a_job_runs_on_the_most_workers_that_divide_its_batch_and_fit() -> None:
    spec = _spec(workers={"min": 1, "max": 12})
    assert [size_that_fits(spec, cpus, 0) for cpus in (1, 2, 3, 4, 5, 6, 11, 12, 99)] == [1, 2, 3, 4, 4, 6, 6, 12, 12]


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 2), st.integers(0, 40), st.integers(0, 8))
def test_no_larger_number_of_workers_would_fit(most: int, cpus: int, gpus: int, have: int, cards: int) -> None:
    spec = _spec(48, workers={"min": 1, "max": most}, cpus_per_worker=cpus, gpus_per_worker=gpus)
    fitting = [n for n in range(1, most + 1) if 24 % n == 0 and n * cpus <= have and n * gpus <= cards]
    assert size_that_fits(spec, have, cards) == (fitting[-1] if fitting else None)
    assert (shortage(spec, have, cards) is None) is bool(fitting)


def test_what_can_never_fit_is_told_with_both_numbers_and_a_remedy() -> None:
    problem = shortage(_spec(200, workers=100), 2, 0)
    assert problem is not None
    assert (problem.field, problem.value) == ("parallel.workers", "100")
    assert problem.problem == "100 workers would need 100 CPUs, and the whole cluster has 2 CPUs"
    assert "parallel.cpus_per_worker" in problem.remedy


def test_a_cluster_without_gpus_never_fits_a_job_that_needs_one() -> None:
    problem = shortage(_spec(workers=1, gpus_per_worker=1), 64, 0)
    assert problem is not None
    assert problem.problem == "1 worker would need 1 CPU and 1 GPU, and the whole cluster has 64 CPUs"


def test_a_number_of_workers_that_the_job_does_not_allow_is_refused_with_those_that_it_does() -> None:
    spec = _spec(workers={"min": 2, "max": 4})
    check_size(spec, 3)
    with pytest.raises(SpecError, match=r"this job cannot run on 5 workers.*start 2 or 3 or 4,"):
        check_size(spec, 5)
    with pytest.raises(SpecError, match="cannot run on 1 worker\\."):
        check_size(spec, 1)


def test_processors_are_written_in_words() -> None:
    assert processors(1, 0) == "1 CPU"
    assert processors(2.5, 1) == "2.5 CPUs and 1 GPU"
