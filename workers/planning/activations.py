"""What forward and backward pass of one micro-batch hold beside weights and gradients, operator by operator.

Sizes: T positions of a micro-batch, M masked ones of them, B rows of S positions, H hidden size, I width of the
feed-forward part, A attention heads, L layers, V vocabulary.
"""

import math
from typing import NamedTuple

from workers.contract.spec.phase import Phase

from .attempt import FP32_BYTES, Attempt

INDEX_BYTES = 8


class Activations(NamedTuple):
    """Bytes at the moments that may be the fullest of a micro-batch."""

    at_the_loss: int
    """When the gradient of the scores is made: all layers are kept, and three matrices of M x V numbers in float32."""
    at_the_vocabulary: int
    """When the gradient of the projection onto the vocabulary is made."""
    at_the_last_layer: int
    """When the backward pass comes to the last layer, and no layer is given up yet."""
    at_the_layer_before: int
    """When it comes to the layer before that, while the gradients of the last layer are exchanged."""
    at_the_embeddings: int
    """At the end of the backward pass."""


def activations(attempt: Attempt, phase: Phase) -> Activations:
    """Return what one micro-batch of a phase holds."""
    sizes, item = attempt.spec.model.architecture, attempt.compute_bytes
    tokens, masked = phase.micro_batch_size * phase.seq_len, masked_positions(attempt, phase)
    hidden = tokens * sizes.hidden * attempt.stream_bytes
    layer = _layer(attempt, phase)
    # The pooler keeps the last hidden states, of which it sees the first of each sample.
    kept = sizes.layers * (hidden if attempt.checkpointing else layer) + _embeddings(attempt, phase) + hidden
    recomputed = layer - hidden if attempt.checkpointing else 0
    last = kept + recomputed + max(2 * hidden, tokens * sizes.intermediate * item, _attention_backward(attempt, phase))
    head = 4 * masked * sizes.hidden * item
    scores = masked * attempt.vocab_size * FP32_BYTES
    narrow_scores = 0 if item == FP32_BYTES else masked * attempt.vocab_size * item
    return Activations(
        at_the_loss=kept + head + 3 * scores,
        at_the_vocabulary=kept + head + scores + narrow_scores,
        at_the_last_layer=last,
        at_the_layer_before=last - (hidden if attempt.checkpointing else layer),
        at_the_embeddings=_embeddings(attempt, phase) + hidden,
    )


def masked_positions(attempt: Attempt, phase: Phase) -> int:
    """Return how many positions of a micro-batch are masked where no position is padding."""
    return math.ceil(phase.micro_batch_size * phase.seq_len * attempt.spec.data.mask_probability)


def _layer(attempt: Attempt, phase: Phase) -> int:
    """Return what a layer keeps for its backward pass, its input included."""
    sizes, item = attempt.spec.model.architecture, attempt.compute_bytes
    tokens = phase.micro_batch_size * phase.seq_len
    # The input, query, key, value, what attention gives, and the input of each norm and of the feed-forward part.
    wide = 8 * sizes.hidden + 2 * sizes.intermediate
    if attempt.autocasts:  # query, key and value cast the input each for itself
        wide += 2 * sizes.hidden
    in_fp32 = 2 * sizes.hidden * (attempt.stream_bytes - item)  # the inputs of the norms
    masks = 2 * sizes.hidden * _mask_bytes(attempt) if attempt.spec.model.dropout else 0
    norms = 2 * 2 * FP32_BYTES
    return tokens * (wide * item + in_fp32 + masks + norms) + _attention(attempt, phase)


def _attention(attempt: Attempt, phase: Phase) -> int:
    """Return what attention keeps beside query, key, value and its result."""
    seq_len, rows = phase.seq_len, phase.micro_batch_size
    if _whole_attention(attempt):  # before and after dropout, and its mask; under autocast all in float32
        tokens, hidden = rows * seq_len, attempt.spec.model.architecture.hidden
        return 3 * _attention_weights(attempt, phase) + 3 * tokens * hidden * (
            attempt.stream_bytes - attempt.compute_bytes
        )
    return _mask(attempt, phase) + rows * seq_len * attempt.spec.model.architecture.heads * FP32_BYTES


def _mask(attempt: Attempt, phase: Phase) -> int:
    """Return the size of the mask that a layer adds: of padding for each token, of packed rows for each pair."""
    packing = attempt.spec.data.packing
    if packing and attempt.on_gpu and attempt.compute_bytes < FP32_BYTES and not _attention_drops(attempt):
        return 0  # attention takes samples of different lengths, and needs no mask
    tokens = phase.micro_batch_size * phase.seq_len
    return tokens * (phase.seq_len if packing else 1) * attempt.compute_bytes


def _attention_backward(attempt: Attempt, phase: Phase) -> int:
    """Return by how much the backward pass through the last attention is fuller than what is kept."""
    if not _whole_attention(attempt):
        return 0
    sizes, tokens = attempt.spec.model.architecture, phase.micro_batch_size * phase.seq_len
    given_up = tokens * (2 * sizes.intermediate + 2 * sizes.hidden) * attempt.compute_bytes
    return 2 * _attention_weights(attempt, phase) - given_up


def _attention_weights(attempt: Attempt, phase: Phase) -> int:
    heads = attempt.spec.model.architecture.heads
    return phase.micro_batch_size * heads * phase.seq_len**2 * attempt.stream_bytes


def _whole_attention(attempt: Attempt) -> bool:
    """Tell whether the weights of attention are matrices in memory: on a CPU where they have dropout."""
    return not attempt.on_gpu and _attention_drops(attempt)


def _attention_drops(attempt: Attempt) -> bool:
    model = attempt.spec.model
    return bool(model.dropout if model.attention_dropout is None else model.attention_dropout)


def _embeddings(attempt: Attempt, phase: Phase) -> int:
    """Return what the embeddings keep: the input of their norm, its dropout, and the numbers of tokens."""
    hidden = attempt.spec.model.architecture.hidden
    mask = hidden * _mask_bytes(attempt) if attempt.spec.model.dropout else 0
    tokens = phase.micro_batch_size * phase.seq_len
    return tokens * (hidden * attempt.stream_bytes + mask + 2 * FP32_BYTES + 3 * INDEX_BYTES)


def _mask_bytes(attempt: Attempt) -> int:
    """Return the size of an element of dropout's mask: a switch on a GPU, a factor on a CPU."""
    return 1 if attempt.on_gpu else attempt.compute_bytes
