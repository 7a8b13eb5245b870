import pytest
import torch
from transformers import BertForPreTraining

from benchmarks.card.loops import columns, matrix_rate, rate
from benchmarks.card.sizes import Size
from tests.benchmarks.card.rows import batch
from workers.contract.spec.model import Model
from workers.model.bert import build


def test_plain_transformers_learns_the_same_loss_from_the_columns_of_a_batch() -> None:
    rows = batch(4, 32, 100, masked=19)
    ours = build(Model(preset="bert-tiny", dropout=0.0), 100, 0, pad_id=0)
    theirs = BertForPreTraining(ours.config)
    theirs.load_state_dict(ours.state_dict())
    sums = ours(rows)
    expected = sums.mlm_loss / 19 + sums.nsp_loss / 4
    assert theirs(**columns(rows, "cpu")).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_rate_counts_the_tokens_of_all_steps_but_the_first_ones() -> None:
    weight, seen = torch.nn.Linear(1, 1), list[int]()

    def loss(number: int) -> torch.Tensor:
        seen.append(number)
        value: torch.Tensor = weight(torch.ones(1)).sum()
        return value

    tokens_per_s = rate(weight, loss, [(0, 10), (1, 20)], Size("bert-tiny", 32, 4, 2, 1024), "cpu")
    assert tokens_per_s > 0
    assert seen == [0, 1] * 11


def test_a_matrix_product_has_a_rate() -> None:
    assert matrix_rate("cpu") > 1e6
