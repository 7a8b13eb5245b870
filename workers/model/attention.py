"""Attention that keeps the samples of a row apart.

Suffixes: B rows, H heads, S tokens per row, D size of a head, P samples and stretches of padding.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "bigbatch"
"""The name under which `transformers` finds this attention."""


class Separation:
    """Which tokens of packed rows may look at each other.

    Args:
        numbers_BS: Number of the sample in its row, 0 where there is padding.
        boundaries: Where samples, and the padding behind them, begin in B·S; and B·S. (P + 1,) int32
        longest: Tokens between two of the boundaries, at most.
    """

    def __init__(self, numbers_BS: Tensor, boundaries: Tensor, longest: int) -> None:
        self.numbers_BS, self.boundaries, self.longest = numbers_BS, boundaries, longest

    @cached_property
    def mask(self) -> Tensor:
        """True where a token may look at another one; padding looks at padding, since none may look at nothing.

        Its shape is (B, 1, S, S).
        """
        return (self.numbers_BS[:, :, None] == self.numbers_BS[:, None, :])[:, None]


def attend(
    module: nn.Module,
    query_BHSD: Tensor,
    key_BHSD: Tensor,
    value_BHSD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    separation: Separation | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend within samples where there is a `separation`, else as `transformers` does it with PyTorch's SDPA.

    Flash attention over sequences of different lengths skips what the mask would hide, but it has no dropout, needs a
    GPU and half precision.
    """
    if separation is not None and query_BHSD.is_cuda and query_BHSD.element_size() == 2 and not dropout:
        return _attend_by_length(query_BHSD, key_BHSD, value_BHSD, scaling, separation), None
    if separation is not None:
        attention_mask = separation.mask
    attended: tuple[Tensor, None] = sdpa_attention_forward(
        module, query_BHSD, key_BHSD, value_BHSD, attention_mask, dropout=dropout, scaling=scaling, **options
    )
    return attended


def _attend_by_length(
    query_BHSD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, scaling: float | None, separation: Separation
) -> Tensor:
    """Return the result as `transformers` wants it, (B, S, H, D): heads behind positions."""
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query_BHSD, key_BHSD, value_BHSD))
    ends, longest = separation.boundaries, separation.longest
    attended = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scaling)
    if not isinstance(attended, torch.Tensor):
        raise TypeError("varlen_attn returned auxiliary outputs that were not asked for")
    batch, heads, seq_len, size = query_BHSD.shape
    return attended.view(batch, seq_len, heads, size)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
