import pytest
import torch
import transformers
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.bert import MODELS, make_parameters, shapes
from tests.ranks import run_on_ranks


@pytest.mark.parametrize("model", MODELS)
def test_the_shapes_are_those_of_bert_for_pre_training(model: str) -> None:
    layers, hidden = MODELS[model]
    config = transformers.BertConfig(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=4 * hidden, num_attention_heads=hidden // 64
    )
    with torch.device("meta"):
        theirs = [tuple(parameter.shape) for parameter in transformers.BertForPreTraining(config).parameters()]
    assert sorted(shapes(model)) == sorted(theirs)


def _parts() -> list[tuple[Tensor, Tensor]]:
    parameters = make_parameters("bert-tiny", mesh=init_device_mesh("cpu", (2,)))
    return [(p.to_local().detach(), p.grad.to_local()) for p in parameters]  # type: ignore[attr-defined, union-attr]


def test_the_shards_of_two_ranks_are_together_what_one_rank_has() -> None:
    first, second = run_on_ranks(2, _parts)
    for whole, a, b in zip(make_parameters("bert-tiny"), first, second, strict=True):
        assert torch.equal(torch.cat([a[0], b[0]]), whole)
        assert whole.grad is not None
        assert torch.equal(torch.cat([a[1], b[1]]), whole.grad)
