"""A batch of made-up tokens, no text behind it."""

import torch

from workers.samples.batch import Batch


def batch(rows: int, seq_len: int, vocabulary: int, masked: int) -> Batch:
    """Return rows without padding, with so many masked tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, vocabulary, (rows, seq_len), generator=generator)
    positions = torch.randperm(rows * seq_len, generator=generator)[:masked].sort().values
    segments = (torch.arange(seq_len) >= seq_len // 2).long().expand(rows, -1)
    return Batch(
        input_ids=ids,
        token_type_ids=segments,
        attention_mask=torch.ones_like(ids),
        masked_positions=positions,
        masked_labels=torch.randint(5, vocabulary, (masked,), generator=generator),
        next_sentence_labels=torch.arange(rows) % 2,
        n_tokens=ids.numel(),
        n_samples=rows,
    )
