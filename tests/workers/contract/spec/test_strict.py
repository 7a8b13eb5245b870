from typing import Any

import pytest
from pydantic import ValidationError

from tests.serving import TINY
from tests.workers.contract.spec.small import spec
from workers.contract.documents import parse_spec, read_document
from workers.contract.problems import SpecError


@pytest.mark.parametrize(
    "section",
    ["model", "data", "optimizer", "parallel", "precision", "execution", "evaluation", "checkpoint", "failures"],
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


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"seed": "1"}, "seed", "is not a whole number"),
        ({"seed": True}, "seed", "is not a whole number"),
        ({"phases": [TINY["phases"][0] | {"steps": "5"}]}, "phases[0].steps", "is not a whole number"),
        ({"phases": [TINY["phases"][0] | {"lr": True}]}, "phases[0].lr", "is not a number"),
        ({"phases": [TINY["phases"][0] | {"lr": "0.1"}]}, "phases[0].lr", "is not a number"),
        ({"parallel": {"workers": "2"}}, "parallel.workers", "is not a whole number"),
        ({"optimizer": {"bias_correction": "yes"}}, "optimizer.bias_correction", "is neither true nor false"),
        ({"optimizer": {"bias_correction": 1}}, "optimizer.bias_correction", "is neither true nor false"),
        ({"data": TINY["data"] | {"vocab": True}}, "data.vocab", "is not a whole number"),
    ],
)
def test_text_is_not_taken_for_a_number_nor_true_for_1(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(TINY | changes)
    (problem,) = refused.value.problems
    assert (problem.field, problem.problem) == (field, says)


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.e-3", ".1e-2", "+1e-3", "0.001", "1.0e-3"])
def test_a_number_in_yaml_is_written_with_or_without_a_dot_and_a_sign(number: str) -> None:
    document = read_document(
        f"phases: [{{seq_len: 64, global_batch_size: 8, micro_batch_size: 4, steps: 2, lr: {number}}}]"
    )
    assert parse_spec(TINY | document).phases[0].peak_lr == pytest.approx(1e-3)
