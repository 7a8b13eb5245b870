"""The prepared text of a job, where it lies on this machine: how many tokens it has, and how long an epoch is."""

from collections.abc import Iterator
from pathlib import Path

from workers.contract.manifests import MANIFEST, ShardsManifest, UnknownFormatError, read_shards
from workers.contract.sources import CorpusError, find
from workers.contract.spec.data import Data
from workers.contract.spec.phase import Phase


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
