from typing import Any

from tests.workers.planning.planned import MODEL, make_spec
from workers.planning.activations import Activations, activations, masked_positions
from workers.planning.attempt import Attempt


def of(dropout: float = 0.0, layers: int = 3, **changes: Any) -> Activations:
    spec = make_spec(model=MODEL | {"dropout": dropout, "layers": layers}, **changes)
    return activations(Attempt(spec, 90, 1, 1), spec.phases[0])


def test_a_seventh_of_the_positions_is_masked_or_as_many_as_the_job_says() -> None:
    spec = make_spec()
    assert masked_positions(Attempt(spec, 90, 1, 1), spec.phases[0]) == 5  # 15 % of 32
    half = make_spec(data={"corpus": ["builtin:austen"], "vocab": 90, "mask_probability": 0.5})
    assert masked_positions(Attempt(half, 90, 1, 1), half.phases[0]) == 16


def test_computing_layers_again_keeps_one_of_them_and_the_inputs_of_all() -> None:
    kept, again = of(), of(execution={"activation_checkpointing": True})
    assert again.at_the_loss < kept.at_the_loss / 2
    assert again.at_the_last_layer > again.at_the_embeddings
    deeper = of(execution={"activation_checkpointing": True}, layers=4)
    assert deeper.at_the_loss - again.at_the_loss == 32 * 32 * 4  # 32 tokens, a hidden size of 32, float32


def test_dropout_costs_a_mask_and_on_a_cpu_attention_in_full() -> None:
    assert of(0.1).at_the_loss > of().at_the_loss
    gpu: dict[str, Any] = {"parallel": {"workers": 1, "gpus_per_worker": 1}}
    masks = 32 * 32 * (2 * 3 + 1)  # two in each of 3 layers and one of the embeddings, a byte each
    assert of(0.1, **gpu).at_the_loss - of(**gpu).at_the_loss == masks


def test_packed_rows_have_a_mask_of_pairs_unless_a_gpu_takes_them_by_length() -> None:
    packed: dict[str, Any] = {"data": {"corpus": ["builtin:austen"], "vocab": 90, "packing": True}}
    gpu: dict[str, Any] = {"parallel": {"workers": 1, "gpus_per_worker": 1}}
    assert of(**packed).at_the_loss - of().at_the_loss == 3 * 32 * (16 - 1) * 4
    assert of(**packed, **gpu).at_the_loss < of(**gpu).at_the_loss
