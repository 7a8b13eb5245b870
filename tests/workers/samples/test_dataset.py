import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.workers.conftest import FIRST, SETTINGS, write_positions
from workers.contract.sources import SPECIAL_TOKENS, CorpusError
from workers.corpus.shards import Shards, ShardWriter
from workers.samples.batch import Batch, Packed
from workers.samples.dataset import PreTrainingData
from workers.samples.order import permute
from workers.samples.pairs import Chunks

PAD, UNK, CLS, SEP, MASK = range(5)
SEQ_LEN = 64


@pytest.fixture(scope="module")
def data(prepared: Path) -> PreTrainingData:
    return PreTrainingData(prepared, seq_len=SEQ_LEN, seed=7)


@pytest.fixture(scope="module")
def many(data: PreTrainingData) -> Batch:
    return data.batch(range(12_000))


def restore(batch: Batch) -> torch.Tensor:
    """Put the labels back where the masks are. (B, S)"""
    ids = batch.input_ids.clone()
    ids.view(-1)[batch.masked_positions] = batch.masked_labels
    return ids


def same(first: Batch, second: Batch) -> bool:
    pairs = zip([*first[:-1], *(first.packed or ())], [*second[:-1], *(second.packed or ())], strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


def join(parts: list[Batch]) -> Batch:
    before = np.cumsum([0, *(part.input_ids.numel() for part in parts)])[:-1]
    moved = [p._replace(masked_positions=p.masked_positions + n) for p, n in zip(parts, before, strict=True)]
    joined: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in moved]) for name in Batch._fields[:6]}
    packed = [(part.packed, int(n)) for part, n in zip(parts, before, strict=True) if part.packed]
    return Batch(
        **joined,
        n_tokens=sum(part.n_tokens for part in parts),
        n_samples=sum(part.n_samples for part in parts),
        packed=join_packed(packed, sum(part.input_ids.numel() for part in parts)) if packed else None,
    )


def join_packed(parts: list[tuple[Packed, int]], end: int) -> Packed:
    return Packed(
        position_ids=torch.cat([part.position_ids for part, _ in parts]),
        starts=torch.cat([part.starts + n for part, n in parts]),
        boundaries=torch.cat([*(part.boundaries[:-1] + n for part, n in parts), torch.tensor([end])]),
    )


def five_sigma(p: float, n: NDArray[np.int64] | int) -> NDArray[np.float64]:
    return np.asarray(5 * np.sqrt(p * (1 - p) / n))


def test_a_sample_is_cls_a_sep_b_sep_pad_with_its_segments_and_its_mask(many: Batch) -> None:
    assert many.input_ids.shape == many.token_type_ids.shape == many.attention_mask.shape == (12_000, SEQ_LEN)
    assert many.n_tokens == int(many.attention_mask.sum())
    ids = restore(many)
    assert (ids[:, 0] == CLS).all()
    assert ((ids == CLS).sum(1) == 1).all()
    assert ((ids == SEP).sum(1) == 2).all()
    assert not (ids == MASK).any()
    assert torch.equal(ids == PAD, many.attention_mask == 0)
    first_sep, second_sep = (ids == SEP).nonzero()[:, 1].view(-1, 2).T
    place = torch.arange(SEQ_LEN)
    assert torch.equal(many.attention_mask.bool(), place <= second_sep[:, None])
    assert torch.equal(many.token_type_ids.bool(), (place > first_sep[:, None]) & (place <= second_sep[:, None]))
    assert (first_sep > 1).all()
    assert (second_sep > first_sep + 1).all()


@settings(max_examples=50)
@given(
    documents=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=6),
    seq_len=st.integers(8, 48),
    shard_tokens=st.integers(1, 100),
    p=st.floats(0.01, 0.99),
)
def test_a_sample_restored_from_its_labels_is_the_text(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], seq_len: int, shard_tokens: int, p: float
) -> None:
    folder = write_positions(tmp_path_factory.mktemp("text"), [*documents, [3, 4]], shard_tokens=shard_tokens)
    data = PreTrainingData(folder, seq_len=seq_len, seed=1, mask_probability=p)
    batch = data.batch(range(3 * len(data)))
    ends = np.cumsum([sum(lengths) for lengths in documents])
    masked = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    masked.view(-1)[batch.masked_positions] = True
    for ids, hidden, label in zip(restore(batch), masked, batch.next_sentence_labels, strict=True):
        a_end, b_end = (ids == SEP).nonzero().flatten().tolist()
        a, b = ids[1:a_end] - FIRST, ids[a_end + 1 : b_end] - FIRST
        assert torch.equal(a, torch.arange(len(a)) + a[0])
        assert torch.equal(b, torch.arange(len(b)) + b[0])
        a_document, b_document = np.searchsorted(ends, [int(a[0]), int(b[0])], side="right")
        assert a_document != b_document if label else b[0] == a[-1] + 1
        assert int(hidden.sum()) == max(1, round(p * (len(a) + len(b))))


def test_half_of_the_second_segments_are_random(many: Batch) -> None:
    share = many.next_sentence_labels.double().mean().item()
    assert abs(share - 0.5) < five_sigma(0.5, len(many.next_sentence_labels))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("micro_batch", [1, 5, 24])
def test_samples_do_not_depend_on_world_size_or_micro_batch(
    data: PreTrainingData, prepared: Path, world_size: int, micro_batch: int
) -> None:
    start = len(data) - 50  # the batch reaches over the end of an epoch
    whole = data.batch(range(start, start + 96))
    parts: list[tuple[int, Batch]] = []
    for rank in reversed(range(world_size)):
        mine = PreTrainingData(prepared, seq_len=SEQ_LEN, seed=7)
        indices = range(start + rank * 96 // world_size, start + (rank + 1) * 96 // world_size)
        for first in range(0, len(indices), micro_batch):
            part = indices[first : first + micro_batch]
            parts.append((part[0], mine.batch(list(part))))
    assert same(join([batch for _, batch in sorted(parts, key=lambda part: part[0])]), whole)


def test_samples_stay_the_same_from_release_to_release(tmp_path: Path) -> None:
    data = PreTrainingData(write_positions(tmp_path, [[9, 4, 14], [3], [20, 2, 2, 7]] * 9), seq_len=24, seed=2026)
    digest = hashlib.sha256()
    for tensor in data.batch(range(100))[:6]:
        assert isinstance(tensor, torch.Tensor)
        digest.update(tensor.numpy().tobytes())
    assert digest.hexdigest()[:16] == "03b340fa7f3d3def"


def test_an_epoch_takes_its_chunks_in_the_order_of_its_permutation(data: PreTrainingData) -> None:
    n = len(data)
    place = np.arange(n)
    orders = [permute(7, np.full(n, epoch), place, n) for epoch in range(3)]
    for epoch, order in enumerate(orders):
        index = range(epoch * n, (epoch + 1) * n)
        rows = data._rows
        assert isinstance(rows, Chunks)
        expected = rows.pairs(7, np.array(index), order)
        assert all((a == b).all() for a, b in zip(data.draw(index).pairs, expected, strict=True))


def test_other_seeds_give_other_samples(data: PreTrainingData, prepared: Path) -> None:
    other = PreTrainingData(prepared, seq_len=SEQ_LEN, seed=8)
    assert not torch.equal(data.batch(range(8)).input_ids, other.batch(range(8)).input_ids)


def test_special_tokens_are_found_wherever_the_vocabulary_has_them(tmp_path: Path) -> None:
    words = [f"t{i}" for i in range(32)]
    writer = ShardWriter(tmp_path, [*words, *SPECIAL_TOKENS])
    for start in (0, 16):
        writer.add([range(start, start + 8), range(start + 8, start + 16)])
    writer.finish([], SETTINGS, ["words"])
    pad, cls, sep, mask = (len(words) + i for i in (PAD, CLS, SEP, MASK))
    ids = PreTrainingData(tmp_path, seq_len=24, seed=0).batch(range(100)).input_ids
    assert (ids[:, 0] == cls).all()
    assert ((ids == sep).sum(1) == 2).all()
    assert (ids == pad).any()
    assert (ids == mask).any()


def test_the_manifest_tells_vocabulary_and_entropy(data: PreTrainingData, prepared: Path) -> None:
    manifest = Shards(prepared).manifest
    assert data.vocab_size == manifest.vocab_size == 500
    assert data.unigram_entropy_nats == manifest.unigram_entropy_nats
    assert 4 < data.unigram_entropy_nats < np.log(500)


def test_settings_that_leave_nothing_to_learn_are_refused(prepared: Path) -> None:
    with pytest.raises(CorpusError, match=r"seq_len 7: no room .*use 8 or more"):
        PreTrainingData(prepared, seq_len=7, seed=0)
    with pytest.raises(CorpusError, match=r"mask_probability 1.0: must lie between 0 and 1"):
        PreTrainingData(prepared, seq_len=64, seed=0, mask_probability=1.0)
