import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError
from workers.contract.spec.model import PRESETS


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


@pytest.mark.parametrize("dropout", [-0.1, 1])
def test_a_dropout_of_attention_is_a_share_below_one(dropout: float) -> None:
    assert spec(model={"preset": "bert-tiny"}).model.attention_dropout is None
    with pytest.raises(SpecError, match=r"model\.attention_dropout"):
        spec(model={"preset": "bert-tiny", "attention_dropout": dropout})


@pytest.mark.parametrize("sizes", [{"hidden": 10**9}, {"intermediate": 2**31 - 1, "layers": 1000}])
def test_a_model_with_more_parameters_than_any_has_is_refused_with_the_limit(sizes: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"has up to [\d,]{17,} parameters, and at most 1,000,000,000,000 are possible"):
        spec(model={"preset": "bert-tiny"} | sizes)


def test_the_largest_models_that_anybody_trains_are_accepted() -> None:
    sizes = {"layers": 118, "hidden": 18_432, "heads": 128, "intermediate": 4 * 18_432}  # 540 billion parameters
    assert spec(model=sizes).model.architecture.layers == 118


def test_a_model_with_more_layers_than_can_be_planned_is_refused() -> None:
    with pytest.raises(SpecError, match=r"model\.layers = 1001: is more than 1000"):
        spec(model={"preset": "bert-tiny", "layers": 1001})
