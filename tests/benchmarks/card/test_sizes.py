import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.card.sizes import SIZES, Size
from tests.benchmarks.card.rows import batch
from workers.contract.spec.model import Model
from workers.model.bert import build


@pytest.mark.parametrize("size", SIZES["bert-tiny"], ids=lambda size: f"{size.seq_len} tokens")
def test_the_useful_arithmetic_is_what_torch_counts_of_our_model(size: Size) -> None:
    """Torch also counts the pooler, and leaves out the gradient of the embeddings' sum, which has no product."""
    rows = batch(5, size.seq_len, size.vocabulary, masked=5 * size.seq_len * 15 // 100)
    model = build(Model(preset=size.model, dropout=0.0), size.vocabulary, 0, pad_id=0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(rows).mlm_loss.backward()
    assert counter.get_total_flops() / rows.n_tokens == pytest.approx(size.flops_per_token, rel=0.02)


def test_bert_large_takes_six_operations_for_each_of_its_weights_and_more_where_rows_are_longer() -> None:
    at_128, at_512 = SIZES["bert-large-uncased"]
    assert at_128.flops_per_token == pytest.approx(6 * 24 * 12 * 1024**2, rel=0.06)
    assert at_512.flops_per_token - at_128.flops_per_token == 6 * 24 * 2 * (512 - 128) * 1024


def test_the_rows_of_a_step_are_those_of_all_its_micro_batches() -> None:
    assert Size("bert-tiny", 32, 4, 3, 1024).batch == 12
