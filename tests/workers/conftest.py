"""A small corpus prepared once, and a synthetic one in which every token tells where it stands."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.workers.object_store import S3, nothing, serving
from workers.contract.manifests import ShardsSettings
from workers.contract.sources import SPECIAL_TOKENS
from workers.corpus.prepare import prepare
from workers.corpus.shards import ShardWriter

FIRST = len(SPECIAL_TOKENS)
SETTINGS = ShardsSettings(vocab=100, lowercase=True)


@dataclass(frozen=True)
class Data:
    corpus: Sequence[str]
    vocab: int | str
    lowercase: bool | Literal["auto"] = "auto"
    validation: Sequence[str] | float | None = None
    encoding_errors: Literal["refuse", "replace"] = "refuse"
    text_column: str = "text"
    deduplicate: bool = False


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server, the only one that the environment names."""
    with serving() as server:
        yield server


@pytest.fixture
def bucket(s3: S3) -> Iterator[str]:
    """The URL of an empty bucket on that server."""
    yield s3.make_bucket()
    s3.refuses = nothing


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(Data(["builtin:austen-valid"], 500), tmp_path_factory.mktemp("home"))


@pytest.fixture
def write_text(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str, name: str = "text.txt") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def write_positions(folder: Path, documents: Sequence[Sequence[int]], **settings: int) -> Path:
    """Write a corpus of sentences with these lengths; the token at position p is p + FIRST, so none occurs twice."""
    total = sum(map(sum, documents))
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, [*SPECIAL_TOKENS, *(f"t{i}" for i in range(total))], **settings)
    start = FIRST
    for lengths in documents:
        document = []
        for length in lengths:
            document.append(range(start, start + length))
            start += length
        writer.add(document)
    writer.finish([], SETTINGS, ["positions"])
    return folder


def write_lengths(folder: Path, documents: Sequence[Sequence[int]]) -> Path:
    """Write a corpus of sentences with these lengths, of one token that occurs again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, [*SPECIAL_TOKENS, "t"])
    for lengths in documents:
        writer.add([[FIRST] * length for length in lengths])
    writer.finish([], SETTINGS, ["lengths"])
    return folder
