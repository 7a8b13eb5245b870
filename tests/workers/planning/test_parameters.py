from typing import Any

import pytest
import torch

from tests.workers.planning.planned import MODEL, make_spec
from workers.contract.spec.model import PRESETS
from workers.model.bert import build
from workers.planning.parameters import parameters

SHAPES: dict[str, tuple[dict[str, Any], int]] = {preset: ({"preset": preset}, 30_522) for preset in PRESETS} | {
    "narrow": (MODEL, 90),
    "an odd vocabulary and short positions": (
        MODEL | {"layers": 1, "hidden": 12, "heads": 3, "max_positions": 17},
        1013,
    ),
    "a preset with other sizes": ({"preset": "bert-base-uncased", "layers": 2, "intermediate": 100}, 8192),
}


@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize("case", SHAPES)
def test_names_shapes_and_what_is_trained_are_those_of_the_model_that_is_built(case: str, next_sentence: bool) -> None:
    model, vocab_size = SHAPES[case]
    data = {"corpus": ["builtin:austen"], "vocab": 90, "next_sentence": next_sentence}
    spec = make_spec(model=model, data=data)
    with torch.device("meta"):
        built = build(spec.model, vocab_size, seed=0, pad_id=0, next_sentence=next_sentence)
    found = {name: (tuple(p.shape), p.requires_grad) for name, p in built.named_parameters()}
    planned = parameters(spec, vocab_size)
    assert {each.name: (each.shape, each.is_trained) for each in planned.all()} == found
    assert planned.elements == sum(p.numel() for p in built.parameters())
    assert planned.tensors == len(found)
    assert planned.trained().elements == sum(p.numel() for p in built.parameters() if p.requires_grad)


def test_bert_base_and_large_have_the_sizes_that_are_known_of_them() -> None:
    counts = {
        preset: parameters(make_spec(model={"preset": preset}), 30_522).elements
        for preset in ("bert-base-uncased", "bert-large-uncased")
    }
    assert counts == {"bert-base-uncased": 110_106_428, "bert-large-uncased": 336_226_108}


def test_the_first_shard_has_whole_rows_and_as_many_as_torch_gives_it() -> None:
    planned = parameters(make_spec(), 90)
    for shards in (1, 2, 3, 8, 100):
        for each in planned.all():
            chunks = torch.chunk(torch.empty(each.shape, device="meta"), shards)
            assert each.shard(shards) == chunks[0].numel() == max(chunk.numel() for chunk in chunks)
        assert planned.shard(shards) == sum(each.shard(shards) for each in planned.all())
