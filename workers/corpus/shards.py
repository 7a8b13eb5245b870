"""Token shards: flat little-endian files that any rank maps into memory, and a manifest that is written last.

- tokens-00000.u16 …: the token numbers of all sentences, one after the other; a shard ends with a document
- sentences.i64: first token of each sentence, counted over all shards; one more: the number of tokens
- documents.i64: first sentence of each document; one more: the number of sentences
- vocab.txt: the vocabulary
- validation/: the text that is kept from training, where there is some, in the same form and with the same vocabulary
- manifest.json: what there is, with the sha256 of each file and of its first bytes
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.contract.manifests import (
    HEAD_BYTES,
    MANIFEST,
    SHARDS_FORMAT,
    VALIDATION,
    HashedFile,
    HashedText,
    ShardsManifest,
    ShardsSettings,
    read_shards,
)
from workers.contract.sources import SPECIAL_TOKENS, CorpusError

from . import vocabulary

SHARD_TOKENS = 2**26  # 128 MiB
VOCABULARY, SENTENCES, DOCUMENTS = "vocab.txt", "sentences.i64", "documents.i64"


class ShardWriter:
    """Writes documents to a folder; `finish` writes the offsets and, last of all, the manifest."""

    def __init__(self, folder: Path, tokens: Sequence[str], shard_tokens: int = SHARD_TOKENS) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.shard_tokens = folder, shard_tokens
        self.n_sentences = self.n_documents = 0
        """So far, empty ones not counted."""
        self._special_ids = {token: tokens.index(token) for token in SPECIAL_TOKENS}
        self._counts = np.zeros(len(tokens), np.int64)
        self._pending: list[NDArray[np.uint16]] = []
        self._pending_tokens = self._tokens = self._shards = 0
        self._files = {name: _Growing(folder / name) for name in (VOCABULARY, SENTENCES, DOCUMENTS)}
        zero = np.zeros(1, np.int64)
        self._ends = {SENTENCES: [zero], DOCUMENTS: [zero]}
        self._files[VOCABULARY].append(vocabulary.as_bytes(tokens))

    def add(self, document: Sequence[Sequence[int]]) -> None:
        """Append a document, given as the token numbers of its sentences; empty sentences are left out."""
        sentences = [sentence for sentence in document if sentence]
        if sentences:
            tokens = np.fromiter(itertools.chain.from_iterable(sentences), np.uint16)
            self.append(tokens, np.array([len(sentence) for sentence in sentences], np.int32))

    def append(self, tokens: NDArray[np.uint16], lengths: NDArray[np.int32]) -> None:
        """Append a document: its tokens, and the number of tokens of each sentence, none of them 0."""
        self._pending.append(tokens)
        self._ends[SENTENCES].append(self._tokens + self._pending_tokens + np.cumsum(lengths, dtype=np.int64))
        self._pending_tokens += len(tokens)
        self.n_sentences += len(lengths)
        self.n_documents += 1
        self._ends[DOCUMENTS].append(np.array([self.n_sentences]))
        if self._pending_tokens >= self.shard_tokens:
            self._flush()

    def finish(
        self,
        text: Sequence[HashedText],
        settings: ShardsSettings,
        sources: Sequence[str],
        validation: str | None = None,
    ) -> ShardsManifest:
        """Write what is left and the manifest.

        Args:
            text: what was read.
            settings: how it was read.
            sources: named where the text is refused.
            validation: identity of the text that is kept from training.

        Raises:
            CorpusError: there is nothing to learn from: no token, or none but [UNK].
        """
        self._flush()
        tokens, unknown = self._tokens, int(self._counts[self._special_ids[vocabulary.UNK]])
        if not tokens:
            raise CorpusError(f"{', '.join(sources)}: holds no text; give files with one paragraph a line")
        if unknown == tokens:
            raise CorpusError(
                f"{', '.join(sources)}: all {tokens:,} tokens are [UNK]; "
                "give data.vocab a vocabulary that was made for this text, or a size"
            )
        manifest = ShardsManifest(
            format=SHARDS_FORMAT,
            text=tuple(text),
            settings=settings,
            tokens=tokens,
            unknown=unknown,
            sentences=self.n_sentences,
            documents=self.n_documents,
            vocab_size=len(self._counts),
            special_ids=self._special_ids,
            unigram_entropy_nats=_entropy_nats(self._counts),
            files=tuple(self._files[name].describe() for name in sorted(self._files)),
            validation=validation,
            heads={name: self._files[name].head_sha256() for name in sorted(self._files)},
        )
        (self.folder / MANIFEST).write_text(manifest.document(), encoding="utf-8")
        return manifest

    def _flush(self) -> None:
        if self._pending:
            tokens = np.concatenate(self._pending)
            name = f"tokens-{self._shards:05d}.u16"
            self._files[name] = _Growing(self.folder / name)
            self._files[name].append(tokens.astype("<u2").tobytes())
            self._counts += np.bincount(tokens, minlength=len(self._counts))
            self._shards += 1
            self._tokens += len(tokens)
            self._pending, self._pending_tokens = [], 0
        for name, ends in self._ends.items():
            if ends:
                self._files[name].append(np.concatenate(ends).astype("<i8").tobytes())
            ends.clear()


class _Growing:
    """A file that grows, and the hashes of what is in it."""

    def __init__(self, path: Path) -> None:
        self._path, self._hash, self._head, self._size_bytes = path, hashlib.sha256(), b"", 0

    def append(self, content: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(content)
        self._hash.update(content)
        self._head += content[: HEAD_BYTES - len(self._head)]
        self._size_bytes += len(content)

    def describe(self) -> HashedFile:
        return HashedFile(name=self._path.name, bytes=self._size_bytes, sha256=self._hash.hexdigest())

    def head_sha256(self) -> str:
        return hashlib.sha256(self._head).hexdigest()


class Shards:
    """A prepared folder, mapped into memory.

    Attributes:
        manifest: What the folder holds.
        sentences: First token of each sentence, and the number of tokens. (sentences + 1,) int64
        documents: First sentence of each document, and the number of sentences. (documents + 1,) int64
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, read_shards(folder)
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
        if self.manifest.validation is not None:
            Shards(self.folder / VALIDATION).verify()


def _entropy_nats(counts: NDArray[np.int64]) -> float:
    # Exactly summed and rounded, because it is a part of the manifest, whose bytes must not depend on the machine.
    total = int(counts.sum())
    return round(-math.fsum(n / total * math.log(n / total) for n in counts[counts > 0].tolist()), 9)


def _describe(path: Path) -> HashedFile:
    return HashedFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, which is read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
