"""The models and batches that are measured, and what their arithmetic comes to."""

from dataclasses import dataclass

from workers.contract.spec.model import PRESETS

MASKED = 0.15
"""Share of the tokens that the model has to restore."""


@dataclass(frozen=True)
class Size:
    """A model at one sequence length."""

    model: str
    seq_len: int
    micro_batch: int
    """Sequences of one forward pass."""
    micro_batches: int
    """Forward passes of a step."""
    vocabulary: int

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return self.micro_batch * self.micro_batches

    @property
    def flops_per_token(self) -> float:
        """Floating point operations that a token cannot do without, forward and backward.

        The products of the layers and of attention over the whole row, and the head on the masked positions alone. A
        head on all positions, or an activation that is computed twice, is work but not useful work.
        """
        sizes = PRESETS[self.model]
        dense = 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.intermediate
        attention = 2 * self.seq_len * sizes.hidden
        head = MASKED * sizes.hidden * (sizes.hidden + self.vocabulary)
        return 6 * (sizes.layers * (dense + attention) + head)  # a product is 2 operations, and backward is 2 more


VOCABULARY = 30_522
SIZES = {
    "bert-base-uncased": [
        Size("bert-base-uncased", 128, 256, 4, VOCABULARY),
        Size("bert-base-uncased", 512, 64, 4, VOCABULARY),
    ],
    "bert-large-uncased": [
        Size("bert-large-uncased", 128, 128, 4, VOCABULARY),
        Size("bert-large-uncased", 512, 32, 4, VOCABULARY),
    ],
    "bert-tiny": [Size("bert-tiny", 32, 4, 2, 1024), Size("bert-tiny", 64, 2, 2, 1024)],
}
"""By model; bert-tiny tries the programs on a CPU."""
