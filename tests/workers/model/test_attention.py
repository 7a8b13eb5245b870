"""Packed rows judged by the same samples in rows of their own, which `transformers`' own forward computes."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import BertForPreTraining

from tests.workers.conftest import write_positions
from workers.contract.spec.model import Model
from workers.model.attention import _attend_by_length
from workers.model.bert import PretrainingBert, _mask, build
from workers.samples.batch import Batch, Packed, Room
from workers.samples.dataset import PreTrainingData

VOCABULARY, ROWS, LENGTH = 500, 20, 60
SIZES = Model(layers=2, hidden=32, heads=4, intermediate=64, max_positions=LENGTH, dropout=0.0)


@pytest.fixture(scope="module", params=[True, False], ids=["pairs", "single segments"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Rows of several samples, some of them with padding behind."""
    folder = write_positions(tmp_path_factory.mktemp("text"), [[9, 4, 14], [3], [20, 2, 2, 7], [31]] * 5)
    data = PreTrainingData(folder, seq_len=LENGTH, seed=1, packing=True, next_sentence=request.param)
    batch = data.batch(range(ROWS))
    assert batch.n_samples > 1.5 * ROWS
    assert (batch.attention_mask == 0).any()
    return batch


def unpack(batch: Batch) -> Batch:
    """Give each sample a row of its own."""
    assert batch.packed is not None
    rows, length = batch.n_samples, LENGTH
    ids, types, mask = (torch.zeros(rows, length, dtype=torch.int64) for _ in range(3))
    positions, labels = list[Tensor](), list[Tensor]()
    for sample, start in enumerate(batch.packed.starts.tolist()):
        row, place = divmod(start, length)
        here = batch.attention_mask[row] == batch.attention_mask[row, place]
        size = int(here.sum())
        ids[sample, :size] = batch.input_ids[row, here]
        types[sample, :size] = batch.token_type_ids[row, here]
        mask[sample, :size] = 1
        inside = (batch.masked_positions >= start) & (batch.masked_positions < start + size)
        positions.append(batch.masked_positions[inside] - start + sample * length)
        labels.append(batch.masked_labels[inside])
    return batch._replace(
        input_ids=ids,
        token_type_ids=types,
        attention_mask=mask,
        masked_positions=torch.cat(positions),
        masked_labels=torch.cat(labels),
        packed=None,
    )


def full_head(model: PretrainingBert, batch: Batch) -> Tensor:
    """The summed losses by `transformers`' forward of one sample a row."""
    labels = torch.full((batch.input_ids.numel(),), -100)
    labels = labels.index_copy(0, batch.masked_positions, batch.masked_labels).view_as(batch.input_ids)
    out = BertForPreTraining.forward(
        model, batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids
    )
    loss = torch.nn.functional.cross_entropy
    mlm: Tensor = loss(out.prediction_logits.flatten(0, 1), labels.flatten(), reduction="sum")
    if not len(batch.next_sentence_labels):
        return mlm
    return mlm + loss(out.seq_relationship_logits, batch.next_sentence_labels, reduction="sum")


def test_packed_and_unpacked_samples_have_the_same_loss_and_gradients(packed: Batch) -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    expected = full_head(model, unpack(packed))
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    sums = model(packed)
    (sums.mlm_loss + sums.nsp_loss).backward()
    torch.testing.assert_close(sums.mlm_loss + sums.nsp_loss, expected, rtol=1e-6, atol=0)
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4, msg=name)


def test_padding_of_packed_rows_changes_neither_loss_nor_gradients(packed: Batch) -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    found = []
    for batch in (packed, packed.padded(Room(masked=200, samples=80, boundaries=120))):
        sums = model(batch)
        (sums.mlm_loss + sums.nsp_loss).backward()
        found.append([*sums, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
    for exact, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, exact, rtol=1e-5, atol=1e-5)


def test_right_guesses_are_those_of_the_unpacked_samples(packed: Batch) -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    with torch.no_grad():
        scores, pairs = model.scores(packed)
        alone, alone_pairs = model.scores(unpack(packed))
    torch.testing.assert_close(scores, alone)
    torch.testing.assert_close(pairs, alone_pairs)
    assert len(pairs) == len(packed.next_sentence_labels)


def test_another_sample_of_the_row_changes_nothing(packed: Batch) -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    changed = packed.input_ids.clone()
    changed[packed.attention_mask != 1] = 7  # all but the first sample of each row, and the padding
    first = packed.attention_mask.flatten()[packed.masked_positions] == 1
    with torch.no_grad():
        before, _ = model.scores(packed)
        after, _ = model.scores(packed._replace(input_ids=changed))
    assert torch.equal(before[first], after[first])
    assert not torch.equal(before[~first], after[~first])


def test_the_mask_and_the_boundaries_say_the_same(packed: Batch) -> None:
    assert packed.packed is not None
    ends = packed.packed.boundaries.tolist()
    expected = torch.zeros(ends[-1], ends[-1])
    for begin, end in pairwise(ends):
        expected[begin:end, begin:end] = 1
    mask = _mask(packed)
    rows = expected.view(ROWS, LENGTH, ROWS, LENGTH).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    assert torch.equal(mask[:, 0], rows.bool())
    assert expected.sum() == mask.sum()  # no sample reaches into the next row


def test_dropout_of_attention_is_its_own_and_by_default_that_of_hidden_states(packed: Batch) -> None:
    configs = [
        build(SIZES.model_copy(update=changes), VOCABULARY, seed=0, pad_id=0).config
        for changes in ({"dropout": 0.3}, {"dropout": 0.3, "attention_dropout": 0.0}, {"attention_dropout": 0.2})
    ]
    found = [(config.hidden_dropout_prob, config.attention_probs_dropout_prob) for config in configs]
    assert found == [(0.3, 0.3), (0.3, 0.0), (0.0, 0.2)]
    model = build(SIZES.model_copy(update={"attention_dropout": 0.5}), VOCABULARY, seed=0, pad_id=0)
    losses = [model(packed).mlm_loss.item() for _ in range(2)]
    assert losses[0] != losses[1]
    assert len({model.eval()(packed).mlm_loss.item() for _ in range(2)}) == 1


def test_a_row_of_padding_alone_is_no_number_that_spreads() -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    ids = torch.tensor([[2, 9, 3, 0, 0, 0]])
    numbers = torch.tensor([[1, 1, 1, 0, 0, 0]])
    description = Packed(torch.tensor([[0, 1, 2, 0, 0, 0]]), torch.tensor([0]), torch.tensor([0, 3, 6]))
    none = torch.zeros(0, dtype=torch.int64)
    batch = Batch(ids, ids * 0, numbers, torch.tensor([1]), torch.tensor([9]), none, 3, 1, description)
    loss = model(batch).mlm_loss
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_pytorch_takes_the_operands_of_attention_by_length_and_gives_heads_behind_positions() -> None:
    """What it computes takes a GPU; this runs its shapes, forward and backward."""
    query = torch.empty(3, 4, 16, 8, device="meta", dtype=torch.bfloat16, requires_grad=True)
    ends = torch.empty(6, device="meta", dtype=torch.int32)
    attended = _attend_by_length(query, query, query, 0.3, ends)
    assert (attended.shape, attended.dtype) == ((3, 16, 4, 8), torch.bfloat16)
    attended.sum().backward()  # type: ignore[no-untyped-call]
    assert query.grad is not None
    assert query.grad.shape == query.shape
