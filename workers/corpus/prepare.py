"""Text → token shards, once for each content: whoever asks first prepares, the others wait and find it done."""

import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from . import vocabulary
from .errors import CorpusError
from .shards import FORMAT, ShardWriter, read_manifest
from .text import documents, split_sentences, text_files

Progress = Callable[[str, float], None]
"""Told what is being done ("learning the vocabulary", "tokenizing") and which part of it is done, 0 to 1."""

DOCUMENTS_AT_ONCE = 64  # keeps the tokenizer's threads busy and the memory small


class DataLike(Protocol):
    """The part of a job's data settings that shards depend on; masking is drawn anew in every batch."""

    @property
    def corpus(self) -> Sequence[str]:
        """Text files, directories of these, or `builtin:NAME`."""

    @property
    def vocab(self) -> int | str:
        """Size of a vocabulary to train, or the path of a vocab.txt."""


def prepare(data: DataLike, home: Path, progress: Progress | None = None) -> Path:
    """Return the folder `home/data/<hash16>` that holds the corpus as token shards, making it if it is not whole.

    The name is a hash of the text, the vocabulary and the format, so equal jobs share one folder. Callers that come
    while another prepares, in any process, wait for it; what a killed one left is cleared away by the next.
    """
    files = text_files(data.corpus)
    folder = home / "data" / _content_hash(files, data.vocab)
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not _is_whole(folder):
            partial = folder.with_suffix(".partial")
            for remains in (partial, folder):
                shutil.rmtree(remains, ignore_errors=True)
            partial.mkdir()
            try:
                _write(partial, data, files, progress or _silent)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write(folder: Path, data: DataLike, files: Sequence[Path], progress: Progress) -> None:
    if isinstance(data.vocab, int):
        progress("learning the vocabulary", 0.0)
        tokens = vocabulary.train(lambda: itertools.chain.from_iterable(_documents(files)), data.vocab)
    else:
        tokens = vocabulary.load(Path(data.vocab).expanduser())
    encoder, writer = vocabulary.tokenizer(tokens), ShardWriter(folder, tokens)
    stream = _documents(files, lambda done: progress("tokenizing", done))
    while batch := list(itertools.islice(stream, DOCUMENTS_AT_ONCE)):
        split = [[s for paragraph in document for s in split_sentences(paragraph)] for document in batch]
        encoded = iter(encoder.encode_batch_fast(list(itertools.chain.from_iterable(split)), add_special_tokens=False))
        for sentences in split:
            writer.add([encoding.ids for encoding in itertools.islice(encoded, len(sentences))])
    writer.finish(data.corpus)


def _documents(files: Sequence[Path], on_part: Callable[[float], None] | None = None) -> Iterator[list[str]]:
    total, before = sum(file.stat().st_size for file in files), 0
    for file in files:
        yield from documents(file, on_part and (lambda read, base=before: on_part((base + read) / total)))
        before += file.stat().st_size
    if on_part:
        on_part(1.0)


def _content_hash(files: Sequence[Path], vocab: int | str) -> str:
    settings = {
        "format": FORMAT,
        "corpus": [_sha256(file) for file in files],
        "vocab": vocab if isinstance(vocab, int) else _sha256(Path(vocab).expanduser()),
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); correct data.corpus or data.vocab") from error


def _is_whole(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except CorpusError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel drops the lock when its holder dies, so no lock is ever stale; the file itself may stay.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _silent(_what: str, _done: float) -> None:
    pass
