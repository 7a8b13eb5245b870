import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.spec.job import JobSpec
from workers.contract.spec.model import PRESETS


def spec(**changes: object) -> JobSpec:
    phase = {"seq_len": 64, "global_batch_size": 96, "micro_batch_size": 8, "steps": 3, "lr": 1e-3}
    return parse_spec({"name": "tiny", "data": {"corpus": ["builtin:austen"]}, "phases": [phase]} | changes)


def test_a_preset_gives_its_sizes_and_each_can_be_overridden() -> None:
    model = spec(model={"preset": "bert-tiny", "layers": 5}).model
    assert model.architecture == PRESETS["bert-tiny"].model_copy(update={"layers": 5})


def test_sizes_serve_without_a_preset() -> None:
    sizes = {"layers": 1, "hidden": 8, "heads": 2, "intermediate": 16}
    assert spec(model=sizes).model.architecture.model_dump() == sizes


@pytest.mark.parametrize("model", [{"layers": 2}, {"preset": "bert-tiny", "heads": 3}, {"preset": "gpt"}])
def test_a_model_that_cannot_be_built_is_refused(model: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="model"):
        spec(model=model)


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


def test_what_is_dumped_is_read_back_the_same() -> None:
    whole = spec(parallel={"workers": {"min": 2, "max": 4}}, optimizer={"trust_ratio_bounds": [0.01, 10]})
    assert parse_spec(whole.model_dump(mode="json")) == whole


@pytest.mark.parametrize("kind", ["linear", "constant"])
def test_a_power_that_no_decay_would_use_is_refused_at_once(kind: str) -> None:
    phase = {"seq_len": 64, "global_batch_size": 96, "steps": 3, "lr": 1e-3, "decay": {"kind": kind, "power": 0.5}}
    with pytest.raises(SpecError, match=r"phases\[0\]\.decay\.power = 0\.5"):
        spec(phases=[phase])


def test_a_range_without_end_is_refused() -> None:
    with pytest.raises(SpecError, match=r"parallel\.workers"):
        spec(parallel={"workers": {"min": 1, "max": 1_000_000_000}})
