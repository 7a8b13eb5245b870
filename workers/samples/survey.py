"""What a text gives a phase: samples an epoch, padding, and the balance of next-sentence prediction."""

from typing import NamedTuple

import numpy as np

from workers.corpus.shards import Shards

from .pairs import Chunks

MOST_SENTENCES = 2**20
"""Of a longer text, whole documents up to about here are looked at."""
FEWEST_SAMPLES = 4096
"""Of a shorter text, several epochs are drawn, so that chance alone does not look like an imbalance."""


class Survey(NamedTuple):
    """What a text gives at one length of samples. In a long text the numbers are those of its beginning."""

    samples: int
    """In an epoch."""
    padding: float
    """Part of the positions that hold no token."""
    random: float
    """Part of the second segments that come from another document."""


def survey(shards: Shards, seq_len: int, seed: int) -> Survey:
    """Draw samples, of whole epochs and at least `FEWEST_SAMPLES`, without reading a token of them."""
    count = int(np.searchsorted(shards.documents, MOST_SENTENCES, side="right")) - 1
    documents = shards.documents[: max(count, 2) + 1]
    sentences = shards.sentences[: documents[-1] + 1]
    chunks = Chunks(sentences, documents, seq_len - 3)
    index = np.arange(len(chunks) * -(-FEWEST_SAMPLES // len(chunks)))
    pairs = chunks.pairs(seed, index, index % len(chunks))
    filled = pairs.a_length + pairs.b_length + 3
    return Survey(
        samples=round(len(chunks) * shards.manifest.tokens / int(sentences[-1])),
        padding=1 - float(filled.mean()) / seq_len,
        random=float(pairs.is_random.mean()),
    )
