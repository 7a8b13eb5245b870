from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from tests.ranks import run_on_ranks
from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.model.bert import build
from workers.model.sharding import device_of, parallelize, whole


def differences(zero_stage: int) -> list[str]:
    """Spread a model, copy it, and name each parameter and buffer that is not what it was before."""
    spec = parse_spec(document(Path(), dist.get_world_size(), zero_stage))
    before = build(spec.model, 90, seed=0, pad_id=0)
    module = build(spec.model, 90, seed=0, pad_id=0)
    parallelize(module, spec, device_of(spec))
    sharded = {name for name, p in module.named_parameters() if isinstance(p, DTensor)}
    copy = whole(module)
    assert not copy.training
    assert {name for name, p in module.named_parameters() if isinstance(p, DTensor)} == sharded
    assert bool(sharded) == (zero_stage > 0)
    assert copy.cls.predictions.decoder.weight is copy.bert.embeddings.word_embeddings.weight
    found = dict(copy.named_parameters()) | dict(copy.named_buffers())
    wanted = dict(before.named_parameters()) | dict(before.named_buffers())
    assert found.keys() == wanted.keys()
    return [name for name in wanted if not torch.equal(found[name], wanted[name])]


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_whole_copy_has_every_parameter_and_leaves_the_model_spread(zero_stage: int) -> None:
    assert run_on_ranks(2, differences, zero_stage) == [[], []]
