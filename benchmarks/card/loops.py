"""Plain loops to compare with: batches that lie on the device, one optimizer of torch, no records, no checkpoints."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForPreTraining

from benchmarks.card.sizes import Size
from workers.contract.spec.model import PRESETS, Model
from workers.model.bert import build
from workers.samples.batch import Batch
from workers.samples.dataset import PreTrainingData

WARM_UP, COUNTED = 3, 8
DISTINCT = 4
"""Micro-batches that are made; they are taken again and again."""


def plain_transformers(size: Size, data: PreTrainingData, device: str) -> float:
    """Real tokens a second of `BertForPreTraining` as its documentation uses it, with the head on all positions."""
    torch.manual_seed(0)
    sizes = PRESETS[size.model]
    config = BertConfig(
        vocab_size=size.vocabulary,
        num_hidden_layers=sizes.layers,
        hidden_size=sizes.hidden,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
    )
    model = BertForPreTraining(config).to(device)
    inputs = [(columns(batch, device), batch.n_tokens) for batch in batches(size, data)]
    return rate(model, lambda columns: model(**columns).loss, inputs, size, device)


def plain_ours(size: Size, data: PreTrainingData, device: str) -> float:
    """Real tokens a second of this project's model class in the same loop."""
    model = build(Model(preset=size.model), size.vocabulary, 0, pad_id=0).to(device)

    def loss(batch: Batch) -> Tensor:
        sums = model(batch)
        mean: Tensor = sums.mlm_loss / len(batch.masked_labels) + sums.nsp_loss / len(batch.next_sentence_labels)
        return mean

    inputs = [(batch.to(device), batch.n_tokens) for batch in batches(size, data)]
    return rate(model, loss, inputs, size, device)


CONTENDERS: dict[str, Callable[[Size, PreTrainingData, str], float]] = {
    "plain transformers": plain_transformers,
    "plain loop, our model": plain_ours,
}


def batches(size: Size, data: PreTrainingData) -> list[Batch]:
    """Return the first micro-batches of a run."""
    micro = size.micro_batch
    return [data.batch(range(first, first + micro)) for first in range(0, DISTINCT * micro, micro)]


def columns(batch: Batch, device: str) -> dict[str, Tensor]:
    """Return a batch under the names that `BertForPreTraining` has for its arguments."""
    labels = torch.full_like(batch.input_ids, -100)
    labels.view(-1)[batch.masked_positions] = batch.masked_labels
    named = {
        "input_ids": batch.input_ids,
        "token_type_ids": batch.token_type_ids,
        "attention_mask": batch.attention_mask,
        "labels": labels,
        "next_sentence_label": batch.next_sentence_labels,
    }
    return {name: column.to(device) for name, column in named.items()}


def rate(
    model: nn.Module, loss: Callable[[Any], Tensor], inputs: Sequence[tuple[Any, int]], size: Size, device: str
) -> float:
    """Train for a few steps, and return the real tokens a second of those after the warm-up.

    `inputs` are micro-batches on the device, each with its number of tokens.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens, begin = 0, 0.0
    for step in range(WARM_UP + COUNTED):
        if step == WARM_UP:
            wait(device)
            tokens, begin = 0, time.perf_counter()
        for number in range(size.micro_batches):
            micro_batch, count = inputs[(step * size.micro_batches + number) % len(inputs)]
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                value = loss(micro_batch) / size.micro_batches
            value.backward()  # type: ignore[no-untyped-call]  # not annotated in torch
            tokens += count
        optimizer.step()
        optimizer.zero_grad()
    wait(device)
    return tokens / (time.perf_counter() - begin)


def wait(device: str) -> None:
    """Wait for the GPU, if there is one."""
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: str) -> float:
    """Floating point operations a second of a large matrix product, in the format that training multiplies in."""
    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    left, right = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    for _ in range(WARM_UP):
        left @ right
    wait(device)
    begin = time.perf_counter()
    for _ in range(COUNTED):
        left @ right
    wait(device)
    return 2 * n**3 * COUNTED / (time.perf_counter() - begin)
