"""Text → token shards, once for each content: whoever asks first prepares, the others wait and find it done."""

import fcntl
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from tokenizers import Tokenizer

from workers.contract import sources
from workers.contract.manifests import SHARDS_FORMAT, VALIDATION, HashedText, ShardsSettings, identity, read_shards
from workers.contract.sources import CorpusError

from . import validation, vocabulary
from .hashes import hash_texts
from .sentences import split_sentences
from .shards import ShardWriter
from .text import documents

Progress = Callable[[str, float], None]
"""Told what is being done ("learning the vocabulary", "tokenizing") and which part of it is done, 0 to 1."""

DOCUMENTS_AT_ONCE = 64  # keeps the tokenizer's threads busy and the memory small


class DataLike(sources.DataLike, Protocol):
    """The part of a job's data settings that shards depend on; masking is drawn again for every batch."""

    @property
    def lowercase(self) -> bool | Literal["auto"]:
        """Whether text is read in lower case; `auto`: unless the given vocabulary has upper-case letters."""

    @property
    def validation(self) -> Sequence[str] | float | None:
        """Files, or a share of the documents, that are kept from training."""


class Writers(NamedTuple):
    """Where documents go."""

    learned: ShardWriter
    held_out: ShardWriter


def prepare(data: DataLike, within: Path, progress: Progress | None = None) -> Path:
    """Return the folder `within/<hash16>` that holds the corpus as token shards, making it if it is not whole.

    The name is a hash of text, vocabulary, settings and format, so equal jobs share one folder. Callers that come
    while another prepares, in any process, wait for it; what a killed one left is cleared away by the next.

    Raises:
        CorpusError: the text or the vocabulary cannot be used; the message names the file and the remedy.
    """
    try:
        return _found_or_made(data, within, progress or _silent)
    except OSError as error:  # the disk is full, the folder another user's
        raise CorpusError(f"{within}: text cannot be prepared there ({error}); make room, or choose another") from error


def _found_or_made(data: DataLike, within: Path, report: Progress) -> Path:
    files, apart = sources.find(data.corpus).files, validation.files_of(data.validation)
    text, held_out = hash_texts(files, within), hash_texts(apart, within)
    validation.check_apart(text, held_out, apart)
    given = None if isinstance(data.vocab, int) else vocabulary.load(Path(data.vocab).expanduser())
    settings = _settings(data, given)
    folder = within / _content_hash(text, held_out, settings)
    if _is_whole(folder):
        return folder
    within.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock"), report):
        if not _is_whole(folder):
            draft = folder.with_suffix(".partial")
            for remains in (draft, folder):
                shutil.rmtree(remains, ignore_errors=True)
            draft.mkdir()
            try:
                writers = _tokenize(files, apart, draft, given, settings, report)
                if hash_texts(files, within) != text or hash_texts(apart, within) != held_out:
                    raise CorpusError(f"{', '.join(data.corpus)}: changed while it was prepared; start again")
                _finish(writers, data, settings, text, held_out)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def _finish(
    writers: Writers,
    data: DataLike,
    settings: ShardsSettings,
    text: Sequence[HashedText],
    held_out: Sequence[HashedText],
) -> None:
    learned, apart = writers
    if data.validation is None:
        shutil.rmtree(apart.folder)
        learned.finish(text, settings, data.corpus)
        return
    named = data.validation
    if isinstance(named, float):
        validation.check_split(named, data.corpus, learned=learned.n_documents, held_out=apart.n_documents)
        named = data.corpus
    if apart.n_sentences == 1:
        raise CorpusError("data.validation: is a single sentence, from which no pair can be taken; give more text")
    apart.finish(held_out or text, settings, [f"data.validation: {source}" for source in named])
    learned.finish(text, settings, data.corpus, identity(apart.folder))


def _settings(data: DataLike, given: Sequence[str] | None) -> ShardsSettings:
    lowercase = not (given and vocabulary.is_cased(given)) if data.lowercase == "auto" else data.lowercase
    vocab = data.vocab if given is None else hashlib.sha256("\n".join(given).encode()).hexdigest()
    return ShardsSettings(vocab=vocab, lowercase=lowercase, validation=validation.share_of(data.validation))


def _tokenize(
    files: Sequence[Path],
    apart: Sequence[Path],
    folder: Path,
    given: list[str] | None,
    settings: ShardsSettings,
    report: Progress,
) -> Writers:
    tokens = given or _learn(files, settings, report)
    encoder = vocabulary.tokenizer(tokens, lowercase=settings.lowercase)
    writers = Writers(ShardWriter(folder, tokens), ShardWriter(folder / VALIDATION, tokens))

    def writer_of(document: list[str]) -> ShardWriter:
        return writers.held_out if validation.is_held_out(document, settings.validation) else writers.learned

    _encode(_documents(files, lambda done: report("tokenizing", done)), encoder, writer_of)
    if apart:
        stream = _documents(apart, lambda done: report("tokenizing the validation text", done))
        _encode(stream, encoder, lambda _: writers.held_out)
    return writers


def _encode(stream: Iterator[list[str]], encoder: Tokenizer, writer_of: Callable[[list[str]], ShardWriter]) -> None:
    while batch := list(itertools.islice(stream, DOCUMENTS_AT_ONCE)):
        split = [[s for paragraph in document for s in split_sentences(paragraph)] for document in batch]
        encoded = iter(encoder.encode_batch_fast(list(itertools.chain.from_iterable(split)), add_special_tokens=False))
        for document, sentences in zip(batch, split, strict=True):
            writer_of(document).add([encoding.ids for encoding in itertools.islice(encoded, len(sentences))])


def _learn(files: Sequence[Path], settings: ShardsSettings, report: Progress) -> list[str]:
    passes = itertools.count()

    def paragraphs() -> Iterator[str]:
        number = next(passes)
        stream = _documents(files, lambda done: report("learning the vocabulary", (number + done) / vocabulary.PASSES))
        return itertools.chain.from_iterable(
            document for document in stream if not validation.is_held_out(document, settings.validation)
        )

    return vocabulary.train(paragraphs, int(settings.vocab), lowercase=settings.lowercase)


def _documents(files: Sequence[Path], on_part: Callable[[float], None]) -> Iterator[list[str]]:
    total, before = sum(file.stat().st_size for file in files), 0
    for file in files:
        yield from documents(file, partial(_part, on_part, before, total))
        before += file.stat().st_size
    on_part(1.0)


def _part(on_part: Callable[[float], None], before: int, total: int, read: int) -> None:
    on_part((before + read) / total)


def _content_hash(text: Sequence[HashedText], held_out: Sequence[HashedText], settings: ShardsSettings) -> str:
    parts = [str(SHARDS_FORMAT), settings.model_dump_json(exclude_none=True)]
    parts += [each.model_dump_json() for each in text]
    if held_out:
        parts += [VALIDATION, *(each.model_dump_json() for each in held_out)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _is_whole(folder: Path) -> bool:
    try:
        read_shards(folder)
    except CorpusError:
        return False
    return True


@contextmanager
def _locked(path: Path, report: Progress) -> Iterator[None]:
    # The kernel drops the lock when its holder dies, so no lock is ever stale; the file itself may stay.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that prepares this text", 0.0)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _silent(_what: str, _done: float) -> None:
    pass
