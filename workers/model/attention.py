"""Attention that keeps the samples of a row apart.

Suffixes: B rows, H heads, S tokens per row, D size of a head, P samples and stretches of padding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "bigbatch"
"""The name under which `transformers` finds this attention."""


def attend(
    module: nn.Module,
    query_BHSD: Tensor,
    key_BHSD: Tensor,
    value_BHSD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    boundaries: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend where the mask is true, as `transformers` does it with PyTorch's SDPA.

    Flash attention over sequences of different lengths skips what the mask of packed rows hides, but it has no dropout,
    needs a GPU and half precision. It is told the samples by their `boundaries`, (P + 1,) int32.
    """
    if boundaries is not None and query_BHSD.is_cuda and query_BHSD.element_size() == 2 and not dropout:
        return _attend_by_length(query_BHSD, key_BHSD, value_BHSD, scaling, boundaries), None
    attended: tuple[Tensor, None] = sdpa_attention_forward(
        module, query_BHSD, key_BHSD, value_BHSD, attention_mask, dropout=dropout, scaling=scaling, **options
    )
    return attended


def _attend_by_length(
    query_BHSD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, scaling: float | None, ends: Tensor
) -> Tensor:
    """Return the result as `transformers` wants it, (B, S, H, D): heads behind positions."""
    batch, heads, seq_len, size = query_BHSD.shape
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query_BHSD, key_BHSD, value_BHSD))
    # No sample is longer than its row. The longest of a batch would be another number each time, and compile anew.
    attended = varlen_attn(query, key, value, ends, ends, seq_len, seq_len, scale=scaling)
    if not isinstance(attended, torch.Tensor):
        raise TypeError("varlen_attn returned auxiliary outputs that were not asked for")
    return attended.view(batch, seq_len, heads, size)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
