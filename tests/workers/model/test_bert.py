import pytest
import torch
from transformers import BertForPreTraining

from workers.contract.spec.model import Model
from workers.model.bert import build
from workers.samples.batch import Batch, Room

SIZES = Model(layers=2, hidden=16, heads=2, intermediate=32, max_positions=24, dropout=0.0)
VOCABULARY = 50


def batch() -> Batch:
    """Four sequences, the last two padded, three masked positions each."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (4, 24), generator=generator)
    attention = torch.ones(4, 24, dtype=torch.int64)
    attention[2:, 16:] = 0
    return Batch(
        input_ids=ids * attention,
        token_type_ids=(torch.arange(24) > 9).long().expand(4, 24) * attention,
        attention_mask=attention,
        masked_positions=(torch.arange(4)[:, None] * 24 + torch.tensor([1, 7, 12])).flatten(),
        masked_labels=torch.randint(5, VOCABULARY, (12,), generator=generator),
        next_sentence_labels=torch.tensor([0, 1, 1, 0]),
        n_tokens=int(attention.sum()),
        n_samples=4,
    )


def full_head(model: BertForPreTraining, batch: Batch) -> torch.Tensor:
    """The loss of `transformers`' own forward, which computes the head on every position."""
    labels = torch.full((4 * 24,), -100).index_copy(0, batch.masked_positions, batch.masked_labels).view(4, 24)
    loss = BertForPreTraining.forward(
        model,
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        labels=labels,
        next_sentence_label=batch.next_sentence_labels,
    ).loss
    assert isinstance(loss, torch.Tensor)
    return loss


def test_the_head_on_masked_positions_gives_the_loss_and_gradients_of_the_full_head() -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    full_head(model, batch()).backward()  # type: ignore[no-untyped-call]
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    sums = model(batch())
    loss = sums.mlm_loss / 12 + sums.nsp_loss / 4
    loss.backward()
    torch.testing.assert_close(loss, full_head(model, batch()))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-7)


def losses_and_gradients(batch: Batch) -> list[torch.Tensor]:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    sums = model(batch)
    (sums.mlm_loss + sums.nsp_loss).backward()
    return [*sums, *(p.grad for p in model.parameters())]


def test_padded_positions_change_no_loss_no_gradient_and_no_count() -> None:
    padded = batch().padded(Room(masked=40, samples=4, boundaries=0))
    assert len(padded.masked_positions) == 40
    for found, expected in zip(losses_and_gradients(padded), losses_and_gradients(batch()), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_right_guesses_are_counted() -> None:
    model, inputs = build(SIZES, VOCABULARY, seed=0, pad_id=0), batch()
    with torch.no_grad():
        scores = BertForPreTraining.forward(
            model, inputs.input_ids, attention_mask=inputs.attention_mask, token_type_ids=inputs.token_type_ids
        ).prediction_logits
    likeliest = scores.flatten(0, 1)[inputs.masked_positions].argmax(dim=-1)
    half = torch.where(torch.arange(12) < 6, likeliest, (likeliest + 1) % VOCABULARY)
    assert model(inputs._replace(masked_labels=half)).mlm_correct == 6


def test_parameters_have_the_names_of_transformers_and_the_decoder_is_tied_to_the_embedding() -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=0)
    assert [name for name, _ in model.named_parameters()] == [
        name for name, _ in BertForPreTraining(model.config).named_parameters()
    ]
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_the_weights_are_a_function_of_the_seed_and_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (build(SIZES, VOCABULARY, seed, pad_id=0) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.bert.pooler.dense.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("pad_id", [0, 3])
def test_the_row_of_pad_starts_at_zero_and_every_other_token_learns(pad_id: int) -> None:
    model = build(SIZES, VOCABULARY, seed=0, pad_id=pad_id)
    assert model.config.pad_token_id == pad_id
    rows = model.bert.embeddings.word_embeddings
    assert [number for number, row in enumerate(rows.weight) if not row.any()] == [pad_id]
    rows(torch.arange(VOCABULARY)).sum().backward()
    assert [number for number, row in enumerate(rows.weight.grad) if not row.any()] == [pad_id]
