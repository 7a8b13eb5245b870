"""What is done with each unit of text, in this process or another: its outline is taken, or it is tokenized."""

import hashlib
import itertools
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workers.contract.sources import CorpusError
from workers.corpus import vocabulary
from workers.corpus.reading.text import Reading, paragraphs
from workers.corpus.reading.units import Unit
from workers.corpus.sentences import split_sentences

from .outcome import DIGEST_BYTES, Outline, Segments, Tokens

PARAGRAPHS_AT_ONCE = 16
"""So few keep what the tokenizer makes of them in the cache of the processor: a sixth faster than 256."""

Marks = NDArray[np.uint8]
REPEATED, HELD_OUT = np.uint8(1), np.uint8(2)
"""Marks of a paragraph, as bits: it stands earlier in the text and is left out; its document is kept from training."""


class Task(Protocol):
    """A function of a unit alone, which can be sent to another process."""

    @property
    def key(self) -> str:
        """Names all that the outcome depends on but the unit, its text and its marks."""

    def __call__(self, unit: Unit, marks: Marks | None) -> bytes:
        """Return the packed outcome. `marks` has an entry a paragraph; without, nothing was decided of any."""


class Outlining:
    """Takes the outline of units."""

    key = "outline"

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __call__(self, unit: Unit, marks: Marks | None) -> bytes:
        """Return a packed `Outline`."""
        del marks
        segments, numbers, digests = Segments(paragraphs(unit, self._reading)), array("q"), bytearray()
        for number, paragraph in segments:
            numbers.append(number)
            digests += hashlib.blake2b(paragraph.encode(), digest_size=DIGEST_BYTES).digest()
        counts = np.bincount(np.frombuffer(numbers, np.int64), minlength=segments.count)
        return Outline(np.frombuffer(bytes(digests), f"V{DIGEST_BYTES}"), counts).pack()


class Tokenizing:
    """Tokenizes units with a vocabulary."""

    def __init__(self, tokens: Sequence[str], *, lowercase: bool, reading: Reading) -> None:
        self._tokens, self._lowercase, self._reading = tokens, lowercase, reading

    @property
    def key(self) -> str:
        """Names the vocabulary."""
        return hashlib.sha256("\n".join(self._tokens).encode()).hexdigest()

    def __getstate__(self) -> dict[str, object]:
        """Leave the tokenizer behind; each process builds its own."""
        return {name: value for name, value in vars(self).items() if name != "_encoder"}

    @cached_property
    def _encoder(self) -> Tokenizer:
        return vocabulary.tokenizer(self._tokens, lowercase=self._lowercase)

    def __call__(self, unit: Unit, marks: Marks | None) -> bytes:
        """Return packed `Tokens`."""
        segments = Segments(paragraphs(unit, self._reading))
        held_out, numbers, counts = set[int](), array("q"), array("q")  # of each paragraph: its segment, its sentences
        ids, lengths = array("H"), array("i")
        kept = _kept(unit, segments, marks, held_out)
        while batch := list(itertools.islice(kept, PARAGRAPHS_AT_ONCE)):
            split = [split_sentences(paragraph) for _, paragraph in batch]
            numbers.extend(number for number, _ in batch)
            counts.extend(map(len, split))
            sentences = list(itertools.chain.from_iterable(split))
            for encoding in self._encoder.encode_batch_fast(sentences, add_special_tokens=False):
                sentence = encoding.ids
                ids.extend(sentence)
                lengths.append(len(sentence))
        every = np.frombuffer(lengths, np.int32)
        segment = np.repeat(np.frombuffer(numbers, np.int64), np.frombuffer(counts, np.int64))[every > 0]
        return Tokens(
            tokens=np.frombuffer(ids, np.uint16),
            lengths=every[every > 0],
            sentences=np.bincount(segment, minlength=segments.count),
            is_held_out=np.isin(np.arange(segments.count), list(held_out)),
        ).pack()


def kept_paragraphs(unit: Unit, marks: Marks | None, reading: Reading) -> Iterator[str]:
    """Yield the paragraphs that are learned from: neither repeated nor held out.

    Raises:
        CorpusError: the file cannot be read, or is not the one that the marks were made for.
    """
    segments = Segments(paragraphs(unit, reading))
    return (paragraph for _, paragraph, mark in _marked(unit, segments, marks) if not mark)


def _marked(unit: Unit, segments: Segments, marks: Marks | None) -> Iterator[tuple[int, str, int]]:
    if marks is None:
        yield from ((number, paragraph, 0) for number, paragraph in segments)
        return
    of_each = iter(marks.tolist())
    for number, paragraph in segments:
        if (mark := next(of_each, None)) is None:
            break
        yield number, paragraph, mark
    else:
        if next(of_each, None) is None:
            return
    raise CorpusError(f"{unit.file}: changed while it was prepared; start again")


def _kept(unit: Unit, segments: Segments, marks: Marks | None, held_out: set[int]) -> Iterator[tuple[int, str]]:
    """Leave repeated paragraphs out, and add the numbers of held-out segments to `held_out`."""
    for number, paragraph, mark in _marked(unit, segments, marks):
        if mark & HELD_OUT:
            held_out.add(number)
        if not mark & REPEATED:
            yield number, paragraph
