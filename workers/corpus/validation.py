"""Text that is kept from training, to judge the model by: files of its own, or a share of the corpus's documents."""

import hashlib
from collections.abc import Iterable, Sequence

from workers.contract import sources
from workers.contract.manifests import HashedText
from workers.contract.sources import CorpusError
from workers.contract.text_files import TextFile

Validation = Sequence[str] | float | None
"""Files or folders, or the share of the documents that is split off."""


def share_of(validation: Validation) -> float | None:
    """Return the share of the documents that is split off the corpus, if one is."""
    return validation if isinstance(validation, float) else None


def files_of(validation: Validation) -> tuple[TextFile, ...]:
    """Return the files that are kept from training as they are."""
    return () if validation is None or isinstance(validation, float) else sources.find(validation).files


def is_held_out(document: Iterable[bytes], share: float) -> bool:
    """Tell whether a document, given as the digests of its paragraphs, belongs to the share.

    Its own words alone decide, so the same documents are held out whatever else the corpus holds and in whatever order,
    copies of a document stay together, and a larger share holds all of a smaller one.
    """
    digest = hashlib.sha256(b"".join(document)).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def check_apart(text: Sequence[HashedText], held_out: Sequence[HashedText], files: Sequence[TextFile]) -> None:
    """Make sure that none of the validation `files` is a file of the corpus, or a copy of one.

    Raises:
        CorpusError: one is; a model would be judged by what it has learned.
    """
    learned = set(text)
    for file, hashed in zip(files, held_out, strict=True):
        if hashed in learned:
            raise CorpusError(f"data.validation: {file} is a file of data.corpus, too; remove it from one of the two")


def check_split(validation: float, corpus: Sequence[str], *, learned: int, held_out: int) -> None:
    """Make sure that both sides of a split have documents: `learned` and `held_out` are how many.

    Raises:
        CorpusError: one has none.
    """
    if learned and held_out:
        return
    part = f"data.validation: {validation} of the {learned + held_out:,} documents in {', '.join(corpus)}"
    remedy = "write a blank line between documents, or name files"
    if not held_out:
        raise CorpusError(f"{part} is none of them; give a larger share, {remedy}")
    raise CorpusError(f"{part} is all of them; give a smaller share, {remedy}")
