"""The path of the text: files → documents → sentences → tokens → shards → batches.

`prepare` does all that is done once for a text (`text`: files to sentences; `vocabulary`: WordPiece; `shards`: flat
files in memory maps) and keeps it under a hash of the content. `PreTrainingData` does what is done for each batch
(`pairs`: which tokens; `dataset`: masks and layout), without state: a batch is a function of (seed, sample indices),
by the counter-based numbers of `draws`.
"""

from .batch import Batch
from .dataset import PreTrainingData
from .errors import CorpusError
from .prepare import prepare

__all__ = ["Batch", "CorpusError", "PreTrainingData", "prepare"]
