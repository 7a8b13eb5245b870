import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.contract.spec.small import spec
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError


def test_world_sizes_are_those_over_which_the_batch_divides() -> None:
    assert spec(parallel={"workers": {"min": 1, "max": 6}}).world_sizes() == [1, 2, 3, 4, 6]


def test_copies_of_the_model_need_groups_of_one_size() -> None:
    assert spec(parallel={"workers": {"min": 1, "max": 6}, "replicate": 2}).world_sizes() == [2, 4, 6]
    with pytest.raises(SpecError, match="replicate"):
        spec(parallel={"workers": 3, "replicate": 2})


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 16))
def test_a_specification_is_valid_exactly_if_its_batch_divides(batch: int, micro_batch: int, workers: int) -> None:
    phase = {"seq_len": 64, "global_batch_size": batch, "micro_batch_size": micro_batch, "steps": 3, "lr": 1e-3}
    if batch % (micro_batch * workers) == 0:
        assert spec(phases=[phase], parallel={"workers": workers}).world_sizes() == [workers]
    else:
        with pytest.raises(SpecError, match="does not divide"):
            spec(phases=[phase], parallel={"workers": workers})


def test_steps_of_all_phases_are_counted() -> None:
    phase = {"seq_len": 64, "global_batch_size": 96, "steps": 3, "lr": 1e-3}
    assert spec(phases=[phase, phase | {"steps": 4}]).total_steps == 7


def test_an_evaluation_without_text_to_evaluate_on_is_refused() -> None:
    assert spec(data={"corpus": ["builtin:austen"], "validation": 0.1}, evaluation={"every_steps": 7}).evaluation
    with pytest.raises(
        SpecError, match=r"evaluation = .*7.*: has no text to evaluate on\. Remedy: write data\.validation"
    ):
        spec(evaluation={"every_steps": 7})


def test_what_is_dumped_is_read_back_the_same() -> None:
    whole = spec(parallel={"workers": {"min": 2, "max": 4}}, optimizer={"trust_ratio_bounds": [0.01, 10]})
    assert parse_spec(whole.model_dump(mode="json")) == whole
