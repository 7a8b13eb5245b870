"""What the model is fed with."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""The label of what has no loss, as PyTorch's cross-entropy knows it."""


class Room(NamedTuple):
    """How many of each a padded batch has."""

    masked: int
    """Masked tokens, M."""
    samples: int
    """Samples, N, of packed rows; others have as many samples as rows."""
    boundaries: int
    """Boundaries between samples, P + 1, of packed rows."""


class Packed(NamedTuple):
    """What a model must know of rows that hold several samples."""

    position_ids: Tensor  # (B, S) int64 - from 0 in each sample
    starts: Tensor  # (N,) int64 - [CLS] of each sample, an index into the flattened B·S, ascending
    boundaries: Tensor  # (P+1,) int64 - where samples, and the padding behind them, begin in B·S; and B·S


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

    def padded(self, room: Room) -> Self:
        """Return the batch with as many masked positions and samples as `room` says, the added ones without a loss.

        So all batches of a phase have the same shapes. Where a batch needs more than the room, it gets twice the room,
        three times, and so on.
        """
        # The first token of all is a [CLS], which is never masked: no other gradient is added to the one here, which
        # is 0.
        padded = self._replace(
            masked_positions=_padded(self.masked_positions, room.masked, 0),
            masked_labels=_padded(self.masked_labels, room.masked, IGNORED),
        )
        if self.packed is None:
            return padded
        boundaries = self.packed.boundaries
        packed = self.packed._replace(
            starts=_padded(self.packed.starts, room.samples, 0),
            boundaries=_padded(boundaries, room.boundaries, int(boundaries[-1])),  # stretches of no token
        )
        return padded._replace(
            next_sentence_labels=_padded(self.next_sentence_labels, room.samples, IGNORED), packed=packed
        )

    def flattened(self, *, pin: bool) -> Tensor:
        """Return all tensors one after the other in one, which may lie in pinned memory. (…,) int64."""
        tensors = [tensor.flatten() for tensor in self._tensors()]
        out = torch.empty(sum(map(len, tensors)), dtype=torch.int64, pin_memory=pin)
        return torch.cat(tensors, out=out)

    def over(self, flat: Tensor) -> Self:
        """Return a batch of these shapes and counts whose tensors are parts of `flat`, ordered as in `flattened`."""
        shapes = [tensor.shape for tensor in self._tensors()]
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        tensors = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        ids, types, numbers, positions, labels, pairs, *packed = tensors
        return self._replace(
            input_ids=ids,
            token_type_ids=types,
            attention_mask=numbers,
            masked_positions=positions,
            masked_labels=labels,
            next_sentence_labels=pairs,
            packed=Packed(*packed) if packed else None,
        )

    def to(self, device: torch.device | str) -> Self:
        """Copy the tensors to a device."""
        return self.over(self.flattened(pin=False).to(device))

    def _tensors(self) -> Iterator[Tensor]:
        yield from self[:6]
        yield from self.packed or ()


def _padded(tensor: Tensor, size: int, value: int) -> Tensor:
    """Pad a vector to `size` or the next multiple of it; one of none stays so."""
    return F.pad(tensor, (0, -len(tensor) % size), value=value)
