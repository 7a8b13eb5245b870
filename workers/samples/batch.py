"""What the model is fed with."""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor


class Packed(NamedTuple):
    """What a model must know of rows that hold several samples."""

    position_ids: Tensor  # (B, S) int64 - from 0 in each sample
    starts: Tensor  # (N,) int64 - [CLS] of each sample, an index into the flattened B·S, ascending
    boundaries: Tensor  # (P+1,) int32 - where samples, and the padding behind them, begin in B·S; and B·S
    longest: int  # tokens between two of the boundaries, at most

    def to(self, device: torch.device | str) -> Self:
        """Copy the tensors to a device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(**tensors)


class Batch(NamedTuple):
    """A batch for BERT's two tasks, padded to a fixed length.

    B rows, S tokens a row, N samples in the whole batch, M masked tokens in the whole batch. Without packing a row is
    one sample.
    """

    input_ids: Tensor  # (B, S) int64 - [CLS] A [SEP] B [SEP] or [CLS] A [SEP], again and again, then [PAD]…
    token_type_ids: Tensor  # (B, S) int64 - 1 from B's first token to the [SEP] after it
    attention_mask: Tensor  # (B, S) int64 - number of the sample in its row, from 1; 0 where there is padding
    masked_positions: Tensor  # (M,) int64 - index into the flattened B·S, ascending
    masked_labels: Tensor  # (M,) int64 - the token that was there
    next_sentence_labels: Tensor  # (N,) int64 - 1 where B was taken from another document; (0,) where there is no B
    n_tokens: int  # tokens that are not padding
    n_samples: int
    packed: Packed | None = None  # None where each row is one sample

    def to(self, device: torch.device | str) -> Self:
        """Copy the tensors to a device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(**tensors, packed=self.packed and self.packed.to(device))
