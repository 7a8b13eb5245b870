"""What the model is fed with."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A batch for BERT's two tasks, padded to a fixed length.

    B samples, S tokens a sample, M masked tokens in the whole batch.
    """

    input_ids: Tensor  # (B, S) int64 - [CLS] A [SEP] B [SEP] [PAD]…
    token_type_ids: Tensor  # (B, S) int64 - 1 from B's first token to the [SEP] after it
    attention_mask: Tensor  # (B, S) int64 - 0 where there is padding
    masked_positions: Tensor  # (M,) int64 - index into the flattened B·S, ascending
    masked_labels: Tensor  # (M,) int64 - the token that was there
    next_sentence_labels: Tensor  # (B,) int64 - 1 where B was taken from another document
    n_tokens: int  # tokens that are not padding

    def to(self, device: torch.device | str) -> Self:
        """Copy the tensors to a device."""
        tensors = self._asdict() | {"n_tokens": None}
        return self._replace(**{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})
