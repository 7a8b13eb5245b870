"""Token shards: flat little-endian files that any rank maps into memory, and a manifest that is written last.

- tokens-00000.u16 …: the token numbers of all sentences, one after the other; a shard ends with a document
- sentences.i64: first token of each sentence, counted over all shards; one more: the number of tokens
- documents.i64: first sentence of each document; one more: the number of sentences
- vocab.txt: the vocabulary
- manifest.json: what there is, with the sha256 of each file
"""

import hashlib
import itertools
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from . import vocabulary
from .errors import CorpusError

FORMAT = 1  # goes into the content hash: raise it whenever the same text would give other files
SHARD_TOKENS = 2**26  # 128 MiB
MANIFEST, VOCABULARY, SENTENCES, DOCUMENTS = "manifest.json", "vocab.txt", "sentences.i64", "documents.i64"


class ShardFile(BaseModel):
    """One file beside the manifest."""

    model_config = ConfigDict(frozen=True)

    name: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a prepared folder holds."""

    model_config = ConfigDict(frozen=True)

    format: int
    sources: tuple[str, ...]
    tokens: int
    sentences: int
    documents: int
    vocab_size: int
    unigram_entropy_nats: float
    """Entropy of the token distribution of the text: the loss of a model that knows only how frequent tokens are."""
    files: tuple[ShardFile, ...]


class ShardWriter:
    """Writes documents to a folder; `finish` writes the offsets and, last of all, the manifest."""

    def __init__(self, folder: Path, tokens: Sequence[str], shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder, self.vocab_size, self.shard_tokens = folder, len(tokens), shard_tokens
        self._pending = array("H")
        self._sentences, self._documents = array("q", [0]), array("q", [0])
        self._counts = np.zeros(self.vocab_size, np.int64)
        self._shards = 0
        vocabulary.save(tokens, folder / VOCABULARY)

    def add(self, document: Sequence[Sequence[int]]) -> None:
        """Append a document, given as the token numbers of its sentences; empty sentences are left out."""
        sentences = [sentence for sentence in document if sentence]
        if not sentences:
            return
        self._pending.extend(itertools.chain.from_iterable(sentences))
        ends = itertools.accumulate(map(len, sentences), initial=self._sentences[-1])
        self._sentences.extend(itertools.islice(ends, 1, None))
        self._documents.append(len(self._sentences) - 1)
        if len(self._pending) >= self.shard_tokens:
            self._flush()

    def finish(self, sources: Sequence[str]) -> Manifest:
        """Write what is left and the manifest; text that no pair of sentences can be taken from is refused."""
        self._flush()
        sentences, documents = np.array(self._sentences), np.array(self._documents)
        if not (np.diff(documents) > 1).any():
            raise CorpusError(
                f"{', '.join(sources)}: {len(documents) - 1} documents and {sentences[-1]} tokens, but no document of "
                "two sentences; give more text, one paragraph a line and a blank line between documents"
            )
        sentences.astype("<i8").tofile(self.folder / SENTENCES)
        documents.astype("<i8").tofile(self.folder / DOCUMENTS)
        frequencies = self._counts[self._counts > 0] / sentences[-1]
        manifest = Manifest(
            format=FORMAT,
            sources=tuple(sources),
            tokens=int(sentences[-1]),
            sentences=len(sentences) - 1,
            documents=len(documents) - 1,
            vocab_size=self.vocab_size,
            unigram_entropy_nats=-float(frequencies @ np.log(frequencies)),
            files=tuple(_describe(path) for path in sorted(self.folder.iterdir())),
        )
        (self.folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return manifest

    def _flush(self) -> None:
        tokens = np.frombuffer(self._pending, np.uint16)
        if tokens.size:
            tokens.astype("<u2").tofile(self.folder / f"tokens-{self._shards:05d}.u16")
            self._counts += np.bincount(tokens, minlength=self.vocab_size)
            self._shards += 1
            self._pending = array("H")


class Shards:
    """A prepared folder, mapped into memory.

    Attributes:
        manifest: What the folder holds.
        sentences: First token of each sentence, and the number of tokens. (sentences + 1,) int64
        documents: First sentence of each document, and the number of sentences. (documents + 1,) int64
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        self.sentences: NDArray[np.int64] = np.asarray(np.memmap(folder / SENTENCES, "<i8", "r"))
        self.documents: NDArray[np.int64] = np.asarray(np.memmap(folder / DOCUMENTS, "<i8", "r"))
        names = [file.name for file in self.manifest.files if file.name.endswith(".u16")]
        self._shards = [np.asarray(np.memmap(folder / name, "<u2", "r")) for name in names]
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read the tokens at these positions, counted over all shards; any shape."""
        if len(self._shards) == 1:
            return self._shards[0][positions].astype(np.int64)
        taken = np.empty(positions.shape, np.int64)
        for shard, start in zip(self._shards, self._starts, strict=False):
            here = (positions >= start) & (positions < start + len(shard))
            taken[here] = shard[positions[here] - start]
        return taken

    def verify(self) -> None:
        """Read every file and compare its sha256 with the manifest's."""
        for file in self.manifest.files:
            if _describe(self.folder / file.name) != file:
                raise CorpusError(f"{self.folder / file.name}: not the bytes that were written; delete {self.folder}")


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest and check that each file is there in its full length."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise CorpusError(f"{folder}: no whole prepared corpus; prepare the text again") from error
    for file in manifest.files:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise CorpusError(f"{path}: missing or not {file.bytes:,} bytes long; prepare the text again")
    return manifest


def _describe(path: Path) -> ShardFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ShardFile(name=path.name, bytes=path.stat().st_size, sha256=digest)
