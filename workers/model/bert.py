"""BERT for pre-training, with its MLM head computed on the masked positions alone.

Shapes: B rows, S tokens per row, N samples and M masked positions in all rows, H hidden size, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForPreTraining

from workers.contract.spec.model import Model
from workers.samples.batch import IGNORED, Batch

from .attention import ATTENTION


class Sums(NamedTuple):
    """Sums over one micro-batch, of which the loop makes means over the global batch. All 0-d, float32."""

    mlm_loss: Tensor
    """Cross-entropy over the M masked positions, in nats."""
    nsp_loss: Tensor
    """Cross-entropy over the next-sentence labels, in nats; 0 where there are none."""
    mlm_correct: Tensor
    """Masked positions whose likeliest token is the right one."""


class PretrainingBert(BertForPreTraining):  # type: ignore[misc]  # transformers is untyped here
    """`transformers`' BertForPreTraining, same parameters and names, with a cheaper forward.

    The head that projects onto the vocabulary costs V/H times a dense layer: on all positions it is most of a small
    BERT's arithmetic, and only the masked 15 % of it has a loss.
    """

    def forward(self, batch: Batch) -> Sums:
        """Return the summed losses of a micro-batch."""
        hidden_BSH, pooled_NH = self._encode(batch)
        return self.sums(hidden_BSH, pooled_NH, batch.masked_positions, batch.masked_labels, batch.next_sentence_labels)

    def sums(
        self, hidden_BSH: Tensor, pooled_NH: Tensor, positions_M: Tensor, labels_M: Tensor, pairs_N: Tensor
    ) -> Sums:
        """Return the summed losses of hidden states and what the pooler makes of them."""
        scores_MV, next_sentence_N2 = self._heads(hidden_BSH, pooled_NH[: len(pairs_N)], positions_M)
        return Sums(
            mlm_loss=F.cross_entropy(scores_MV, labels_M, reduction="sum", ignore_index=IGNORED),
            nsp_loss=F.cross_entropy(next_sentence_N2, pairs_N, reduction="sum", ignore_index=IGNORED),
            mlm_correct=(scores_MV.argmax(dim=-1) == labels_M).sum().float(),
        )

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores of each masked position for each token, (M, V), and of next-sentence prediction, (N, 2).

        Where samples have one segment, N is 0.
        """
        hidden_BSH, pooled_NH = self._encode(batch)
        return self._heads(hidden_BSH, pooled_NH[: len(batch.next_sentence_labels)], batch.masked_positions)

    def _heads(self, hidden_BSH: Tensor, pooled_NH: Tensor, positions_M: Tensor) -> tuple[Tensor, Tensor]:
        masked_MH = hidden_BSH.flatten(0, 1).index_select(0, positions_M)
        scores_MV, next_sentence_N2 = self.cls(masked_MH, pooled_NH)
        return scores_MV.float(), next_sentence_N2.float()

    def _encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the hidden states, and what the pooler makes of each sample's first."""
        if batch.packed is None:
            hidden_BSH, pooled_NH = self.bert(
                batch.input_ids, attention_mask=_mask(batch), token_type_ids=batch.token_type_ids
            )[:2]
            return hidden_BSH, pooled_NH
        hidden_BSH = self.bert(
            batch.input_ids,
            attention_mask=_mask(batch),
            token_type_ids=batch.token_type_ids,
            position_ids=batch.packed.position_ids,
            boundaries=batch.packed.boundaries.int(),
        )[0]
        first_N1H = hidden_BSH.flatten(0, 1).index_select(0, batch.packed.starts)[:, None]
        return hidden_BSH, self.bert.pooler(first_N1H)


def _mask(batch: Batch) -> Tensor:
    """Return where a token may look at another one, as a mask that broadcasts to (B, heads, S, S).

    `transformers` makes one of a two-dimensional mask, and waits for the device to learn whether it hides anything.
    """
    numbers_BS = batch.attention_mask
    if batch.packed is None:
        return (numbers_BS != 0)[:, None, None]
    # Padding looks at padding, since none may look at nothing.
    return (numbers_BS[:, :, None] == numbers_BS[:, None, :])[:, None]


def build(model: Model, vocab_size: int, seed: int, *, pad_id: int, next_sentence: bool = True) -> PretrainingBert:
    """Build the model with weights that are a function of `seed`, the same on every rank.

    Args:
        model: The sizes.
        vocab_size: Tokens in the vocabulary.
        seed: Decides the weights.
        pad_id: Number of [PAD] in the vocabulary: that row of the embedding starts at zero and stays there.
        next_sentence: Whether there is a next-sentence task. Without it, the weights that only it trains are frozen.
    """
    config = configuration(model, vocab_size, pad_id=pad_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bert = PretrainingBert(config)
    if not next_sentence:
        for unused in (bert.bert.pooler, bert.cls.seq_relationship):
            unused.requires_grad_(False)
    return bert


def configuration(model: Model, vocab_size: int, *, pad_id: int) -> BertConfig:
    """Return what `transformers` must know of the model."""
    sizes = model.architecture
    return BertConfig(
        vocab_size=vocab_size,
        pad_token_id=pad_id,
        num_hidden_layers=sizes.layers,
        hidden_size=sizes.hidden,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=model.max_positions,
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=model.dropout if model.attention_dropout is None else model.attention_dropout,
        attn_implementation=ATTENTION,
    )
