import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.contract.spec.small import PHASE, spec
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.spec.job import JobSpec


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


def two_phases(workers: object) -> JobSpec:
    phase = {"seq_len": 128, "steps": 3, "lr": 1e-3}
    sizes = [
        {"global_batch_size": 65_536, "micro_batch_size": 64},
        {"global_batch_size": 32_768, "micro_batch_size": 16},
    ]
    return spec(phases=[phase | size for size in sizes], parallel={"workers": workers})


def test_of_a_range_only_the_numbers_of_workers_that_divide_every_batch_are_used() -> None:
    assert two_phases({"min": 4, "max": 8}).world_sizes() == [4, 8]


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        ({"min": 5, "max": 7}, "divide over 5 to 7 workers. Remedy: write 4 or 8, the nearest"),
        (3, "1,024 or 2,048 micro-batches does not divide over 3 workers. Remedy: write 2 or 4, the nearest"),
        (2_000, "divide over 2,000 workers. Remedy: write 1024, the nearest"),
    ],
)
def test_a_job_that_no_number_of_workers_divides_is_told_the_nearest_that_do(workers: object, says: str) -> None:
    with pytest.raises(SpecError, match=rf"parallel\.workers = .*{says}"):
        two_phases(workers)


def test_phases_that_divide_at_different_numbers_of_workers_are_told_where_both_do() -> None:
    phases = [PHASE | {"global_batch_size": 8 * count} for count in (4 * 5, 6 * 5)]
    with pytest.raises(
        SpecError, match=r"20 or 30 micro-batches does not divide over 3 to 4 workers\. Remedy: write 2 or 5"
    ):
        spec(phases=phases, parallel={"workers": {"min": 3, "max": 4}})


def test_a_batch_of_broken_micro_batches_is_told_the_nearest_whole_ones() -> None:
    with pytest.raises(SpecError, match=r"phases\[0\]\.global_batch_size = 100: .* Remedy: write 96 or 104"):
        spec(phases=[PHASE | {"global_batch_size": 100}])
    with pytest.raises(SpecError, match="Remedy: write 8, or change"):
        spec(phases=[PHASE | {"global_batch_size": 3}])


def test_replicas_that_no_number_of_workers_can_form_are_named() -> None:
    with pytest.raises(SpecError, match=r"parallel\.replicate = 5: .*12 micro-batches does not divide over 5 workers"):
        spec(parallel={"workers": 5, "replicate": 5})


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
