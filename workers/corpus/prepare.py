"""Text → token shards, once for each content: whoever asks first prepares, the others wait and find it done."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from workers.contract import sources
from workers.contract.manifests import (
    MANIFEST,
    SHARDS_FORMAT,
    VALIDATION,
    ShardsSettings,
    UnknownFormatError,
    identity,
    read_shards,
)
from workers.contract.sources import CorpusError
from workers.contract.text_files import TextFile, without_protocol

from . import validation, vocabulary
from .build import Builder, Progress, Text, Writers
from .hashes import hash_texts
from .work.pool import Spread, if_large, on_all_processors
from .work.process import WorkerError

__all__ = ["DataLike", "Progress", "prepare"]


class DataLike(sources.DataLike, Protocol):
    """The part of a job's data settings that shards depend on; masking is drawn again for every batch."""

    @property
    def lowercase(self) -> bool | Literal["auto"]:
        """Whether text is read in lower case; `auto`: unless the given vocabulary has upper-case letters."""

    @property
    def encoding_errors(self) -> Literal["refuse", "replace"]:
        """Whether bytes that are not UTF-8 are refused, or each read as U+FFFD."""

    @property
    def text_column(self) -> str:
        """Where the text stands in the objects of a .jsonl file and in the rows of a .parquet file."""

    @property
    def deduplicate(self) -> bool:
        """Whether a paragraph that stands earlier in the text is left out."""


def prepare(
    data: DataLike,
    within: Path,
    progress: Progress | None = None,
    *,
    spread: Spread | None = None,
    unit_bytes: int | None = None,
    begun_on: str | None = None,
) -> Path:
    """Return the folder `within/<hash16>` that holds the corpus as token shards, making it if it is not whole.

    The name is a hash of text, vocabulary, settings and format, so equal jobs share one folder. Callers that come
    while another prepares, in any process, wait for it. What one that was interrupted had done is used by the next.

    Args:
        data: text, vocabulary and settings.
        within: the folder of prepared texts.
        progress: told what is done.
        spread: how units of text are worked on; by default on all processors of this machine, where there is much text.
        unit_bytes: size of these units; by default what suits the size of the text.
        begun_on: identity of the prepared corpus that a run was begun on. Another text is refused, if possible before
            it is prepared.

    Raises:
        CorpusError: the text or the vocabulary cannot be used; the message names the file and the remedy.
    """
    try:
        return _found_or_made(
            data, within, progress or _silent, spread or if_large(on_all_processors), unit_bytes, begun_on
        )
    except OSError as error:  # the disk is full, the folder another user's
        raise CorpusError(f"{within}: text cannot be prepared there ({error}); make room, or choose another") from error


def _found_or_made(
    data: DataLike, within: Path, report: Progress, spread: Spread, unit_bytes: int | None, begun_on: str | None
) -> Path:
    corpus, apart = _look(data, within, report)
    given = None if isinstance(data.vocab, int) else vocabulary.load(Path(without_protocol(data.vocab)).expanduser())
    settings = _settings(data, given, [*corpus.files, *apart.files])
    folder = within / _content_hash(corpus, apart, settings)
    if not _damage(folder):
        return folder
    if begun_on:
        _check_begun_on(begun_on, data, within, corpus, apart, settings)
    within.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock"), report):
        if damage := _damage(folder):
            if folder.exists():
                report(f"preparing it again: {damage}", 0.0)
                shutil.rmtree(folder)
            work = folder.with_suffix(".partial")
            builder = Builder(work, settings, given, spread, unit_bytes, report)
            try:
                writers = builder.build(corpus, apart)
                _check_unchanged(data, (corpus, apart), _look(data, within, report))
                _finish(writers, data, settings, corpus, apart)
            except CorpusError as error:
                if not isinstance(error, WorkerError):  # what was done of a text that is refused is of no more use
                    shutil.rmtree(work, ignore_errors=True)
                raise
            writers.learned.folder.rename(folder)
            shutil.rmtree(work)
    return folder


def _look(data: DataLike, within: Path, report: Progress) -> tuple[Text, Text]:
    """Find the files of the corpus and of the text that is kept from training, and their hashes."""
    corpus, apart = (
        Text(files, hash_texts(files, within, lambda done: report("hashing the text", done)) if files else [])
        for files in (sources.find(data.corpus).files, validation.files_of(data.validation))
    )
    validation.check_apart(corpus.contents, apart.contents, apart.files)
    return corpus, apart


def _check_begun_on(
    begun_on: str, data: DataLike, within: Path, corpus: Text, apart: Text, settings: ShardsSettings
) -> None:
    """Refuse a text that is not the one which a run was begun on, if that one lies here."""
    for manifest in within.glob(f"*/{MANIFEST}"):
        try:
            before, found = read_shards(manifest.parent), identity(manifest.parent)
        except (CorpusError, UnknownFormatError):
            continue
        if found != begun_on:
            continue
        if before.settings != settings:
            what = "the vocabulary or the settings are others"
        elif list(before.text) != corpus.contents:
            what = "the files hold another text"
        else:
            what = f"another text is kept from training, {', '.join(map(str, apart.files)) or data.validation}"
        raise CorpusError(
            f"{', '.join(data.corpus)}: not the text, vocabulary and settings that this run was begun on, which are "
            f"prepared in {manifest.parent} with the identity {begun_on[:16]}: {what}. Bring the old ones back, or "
            "begin another run in another folder"
        )


def _check_unchanged(data: DataLike, before: tuple[Text, Text], after: tuple[Text, Text]) -> None:
    if [text.contents for text in before] != [text.contents for text in after]:
        raise CorpusError(f"{', '.join(data.corpus)}: changed while it was prepared; start again")


def _finish(writers: Writers, data: DataLike, settings: ShardsSettings, corpus: Text, apart: Text) -> None:
    learned, held_out = writers
    if data.validation is None:
        shutil.rmtree(held_out.folder)
        learned.finish(corpus.contents, settings, data.corpus)
        return
    if isinstance(data.validation, float):
        validation.check_split(data.validation, data.corpus, learned=learned.n_documents, held_out=held_out.n_documents)
    if held_out.n_sentences == 1:
        raise CorpusError("data.validation: is a single sentence, from which no pair can be taken; give more text")
    named = data.corpus if isinstance(data.validation, float) else data.validation
    held_out.finish(apart.contents or corpus.contents, settings, [f"data.validation: {source}" for source in named])
    learned.finish(corpus.contents, settings, data.corpus, identity(held_out.folder))


def _settings(data: DataLike, given: Sequence[str] | None, files: Sequence[TextFile]) -> ShardsSettings:
    """Return what the shards depend on. What older versions could not do is absent unless it is asked for."""
    lowercase = not (given and vocabulary.is_cased(given)) if data.lowercase == "auto" else data.lowercase
    vocab = data.vocab if given is None else hashlib.sha256("\n".join(given).encode()).hexdigest()
    has_columns = any(file.kind != "txt" for file in files)
    return ShardsSettings(
        vocab=vocab,
        lowercase=lowercase,
        validation=validation.share_of(data.validation),
        encoding_errors="replace" if data.encoding_errors == "replace" else None,
        text_column=data.text_column if has_columns else None,
        deduplicate=True if data.deduplicate else None,
    )


def _content_hash(corpus: Text, apart: Text, settings: ShardsSettings) -> str:
    parts = [str(SHARDS_FORMAT), settings.model_dump_json(exclude_none=True)]
    parts += [each.model_dump_json(exclude_none=True) for each in corpus.contents]
    if apart.files:
        parts += [VALIDATION, *(each.model_dump_json(exclude_none=True) for each in apart.contents)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _damage(folder: Path) -> str | None:
    """Return why a folder does not hold a whole prepared corpus, if it does not."""
    try:
        read_shards(folder)
    except CorpusError as error:
        return str(error)
    return None


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
