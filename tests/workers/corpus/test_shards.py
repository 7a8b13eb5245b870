import hashlib
import math
from collections import Counter
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.conftest import SETTINGS, write_positions
from workers.contract.sources import SPECIAL_TOKENS, CorpusError
from workers.corpus.shards import Shards, ShardWriter

TOKENS = [*SPECIAL_TOKENS, *"abcdefghijklmno"]
SENTENCE = st.lists(st.integers(0, len(TOKENS) - 1), max_size=6)
CORPUS = st.lists(st.lists(SENTENCE, max_size=5), max_size=8)


@given(corpus=CORPUS, shard_tokens=st.integers(1, 40))
def test_what_was_written_is_read_back_whatever_the_size_of_a_shard(
    tmp_path_factory: pytest.TempPathFactory, corpus: list[list[list[int]]], shard_tokens: int
) -> None:
    corpus.append([[5, 6], [7]])
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(folder, TOKENS, shard_tokens)
    for document in corpus:
        writer.add(document)
    manifest = writer.finish([], SETTINGS, ["here"])

    kept = [[s for s in document if s] for document in corpus if any(document)]
    sentences, flat = list(chain.from_iterable(kept)), list(chain.from_iterable(chain.from_iterable(kept)))
    shards = Shards(folder)
    shards.verify()
    assert shards.manifest == manifest
    assert (manifest.tokens, manifest.sentences, manifest.documents) == (len(flat), len(sentences), len(kept))
    assert shards.take(np.arange(len(flat))).tolist() == flat
    assert shards.sentences.tolist() == list(accumulate(map(len, sentences), initial=0))
    assert shards.documents.tolist() == list(accumulate(map(len, kept), initial=0))
    entropy = -sum(n / len(flat) * math.log(n / len(flat)) for n in Counter(flat).values())
    assert manifest.unigram_entropy_nats == pytest.approx(entropy, abs=1e-9)
    assert manifest.unknown == flat.count(TOKENS.index("[UNK]"))


def test_a_shard_ends_with_a_document_and_holds_little_endian_numbers(tmp_path: Path) -> None:
    write_positions(tmp_path, [[2, 1], [2], [1, 1]], shard_tokens=4)
    assert (tmp_path / "tokens-00000.u16").read_bytes() == bytes([5, 0, 6, 0, 7, 0, 8, 0, 9, 0])
    assert (tmp_path / "tokens-00001.u16").read_bytes() == bytes([10, 0, 11, 0])


def test_positions_of_any_shape_may_lie_in_any_shard(tmp_path: Path) -> None:
    shards = Shards(write_positions(tmp_path, [[2, 3]] * 6, shard_tokens=7))
    positions = np.array([[29, 0, 10], [9, 11, 28]])
    assert len(list(tmp_path.glob("*.u16"))) == 3
    assert (shards.take(positions) == positions + 5).all()


@pytest.mark.parametrize("documents", [[], [[]], [[[], []], [[]]]])
def test_a_corpus_without_a_token_is_refused(tmp_path: Path, documents: list[list[list[int]]]) -> None:
    writer = ShardWriter(tmp_path, TOKENS)
    for document in documents:
        writer.add(document)
    with pytest.raises(CorpusError, match=r"a\.txt, b\.txt: holds no text; give files with one paragraph a line"):
        writer.finish([], SETTINGS, ["a.txt", "b.txt"])
    assert not (tmp_path / "manifest.json").exists()


def test_a_corpus_of_unknown_tokens_alone_is_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, TOKENS)
    writer.add([[1, 1, 1], [1]])
    with pytest.raises(CorpusError, match=r"a\.txt: all 4 tokens are \[UNK\]; give data\.vocab a vocabulary"):
        writer.finish([], SETTINGS, ["a.txt"])
    assert not (tmp_path / "manifest.json").exists()


def test_a_changed_byte_is_found_by_its_hash(tmp_path: Path) -> None:
    path = write_positions(tmp_path, [[2, 3]] * 500) / "tokens-00000.u16"
    content = bytearray(path.read_bytes())
    content[4096] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"tokens-00000\.u16: not the bytes that were written; delete"):
        Shards(tmp_path).verify()


@pytest.mark.parametrize("name", ["vocab.txt", "tokens-00000.u16", "sentences.i64", "documents.i64"])
def test_a_file_that_is_cut_or_gone_is_found_at_opening(tmp_path: Path, name: str) -> None:
    path = write_positions(tmp_path, [[2, 3]]) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=rf"{name}: missing or not [\d,]+ bytes long; prepare the text again"):
        Shards(tmp_path)
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{name}: missing"):
        Shards(tmp_path)


@pytest.mark.parametrize("name", ["vocab.txt", "tokens-00000.u16", "tokens-00001.u16", "sentences.i64"])
def test_a_file_that_begins_with_other_bytes_is_found_at_opening(tmp_path: Path, name: str) -> None:
    path = write_positions(tmp_path, [[2, 3]] * 6, shard_tokens=20) / name
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"{name}: does not begin with the bytes that were written; prepare the"):
        Shards(tmp_path)


def test_every_file_is_described_as_it_lies_there(tmp_path: Path) -> None:
    manifest = Shards(write_positions(tmp_path, [[2, 3]] * 6, shard_tokens=7)).manifest
    assert [file.name for file in manifest.files] == sorted(
        path.name for path in tmp_path.iterdir() if path.name != "manifest.json"
    )
    for file in manifest.files:
        content = (tmp_path / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
