"""The text of a job, where it lies on this machine: which one it is, how much, and how many tokens once prepared."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from workers.contract.manifests import MANIFEST, ShardsManifest, UnknownFormatError, read_shards
from workers.contract.sources import CorpusError, find, named_files, vocabulary_file
from workers.contract.spec.data import Data
from workers.contract.spec.phase import Phase
from workers.contract.text_files import TextFile, is_url, without_protocol

SMALL_BYTES = 2**20
"""The workers prepare so much text themselves: a process of its own takes as long to start."""
_DECISIVE = ("corpus", "validation", "vocab", "lowercase", "encoding_errors", "text_column", "deduplicate")


class Text(NamedTuple):
    """What is known of a text from names, sizes and times."""

    key: str
    """Jobs with the same one have the same text, vocabulary and settings."""
    size_bytes: int | None
    """Of its files; None where it is, in part or whole, on other machines."""

    @property
    def is_small(self) -> bool:
        """Whether the workers are to prepare it."""
        return self.size_bytes is not None and self.size_bytes <= SMALL_BYTES


def text_of(data: Data) -> Text:
    """Look at the text of a job without reading any; what is on other machines is known by its name alone."""
    settings, states, size_bytes = data.model_dump(mode="json", include=set(_DECISIVE)), list[list[str | int]](), 0
    try:
        for file in _files(data):
            state = file.state()
            states.append([str(file), state.size_bytes, state.version])
            size_bytes += state.size_bytes
    except (CorpusError, OSError):
        return unseen(data)
    content = json.dumps([settings, states], sort_keys=True)
    has_more = any(is_url(source) for source in named_files(data).values())
    return Text(hashlib.sha256(content.encode()).hexdigest(), None if has_more else size_bytes)


def unseen(data: Data) -> Text:
    """Return what is known of a text that nobody has looked at."""
    settings = data.model_dump(mode="json", include=set(_DECISIVE))
    return Text(hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(), None)


def _files(data: Data) -> list[TextFile]:
    held_out = () if data.validation is None or isinstance(data.validation, float) else data.validation
    local = [source for source in (*data.corpus, *held_out) if not is_url(source)]
    found = list(find(local).files) if local else []
    if isinstance(data.vocab, str):
        path = Path(without_protocol(data.vocab)).expanduser()
        found.append(TextFile(str((vocabulary_file(path) or path) if path.is_dir() else path)))
    return found


def prepared(data: Data, within: Path) -> ShardsManifest | None:
    """Find the prepared text of a job among those in a folder; None where there is none.

    Nothing is read but manifests. Text is taken for the job's where its files have the sizes of the job's, and it was
    prepared with the job's settings.
    """
    try:
        sizes = [file.state().size_bytes for file in find(data.corpus).files]
    except (CorpusError, OSError):  # the text is on other machines
        return None
    return next((each for each in _manifests(within) if _is_of(each, data, sizes)), None)


def epochs(phase: Phase, data: Data, text: ShardsManifest) -> float:
    """Return how often a phase goes through a text, at most: padding, and more samples in a row, make it less."""
    special = 3 if data.next_sentence else 2  # [CLS], and a [SEP] after each segment
    return phase.steps * phase.global_batch_size * (phase.seq_len - special) / text.tokens


def _manifests(within: Path) -> Iterator[ShardsManifest]:
    for path in sorted(within.glob(f"*/{MANIFEST}")):
        try:
            yield read_shards(path.parent)
        except (CorpusError, UnknownFormatError):
            continue


def _is_of(text: ShardsManifest, data: Data, sizes: list[int]) -> bool:
    settings, share = text.settings, data.validation if isinstance(data.validation, float) else None
    return (
        [each.bytes for each in text.text] == sizes
        and (settings.vocab == data.vocab or (not isinstance(settings.vocab, int) and isinstance(data.vocab, str)))
        and data.lowercase in {"auto", settings.lowercase}
        and settings.validation == share
        and bool(settings.deduplicate) == data.deduplicate
    )
