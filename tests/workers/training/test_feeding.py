"""What each rank is given to compute, and what it knows of the others' part."""

from pathlib import Path

import pytest
import torch

from tests.ranks import run_on_ranks
from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.phases import phase_windows
from workers.contract.spec.phase import Phase
from workers.corpus.prepare import prepare
from workers.ranks import process_group
from workers.samples.batch import IGNORED, Batch
from workers.samples.dataset import PreTrainingData, open_phase
from workers.training.feeding import Share, feed, split

CPU = torch.device("cpu")


def opened(text: Path, home: Path, kind: dict[str, object]) -> PreTrainingData:
    job = document(text)
    spec = parse_spec(job | {"data": job["data"] | kind})
    return open_phase(prepare(spec.data, home), spec, spec.phases[0])


def fed(text: Path, home: Path, kind: dict[str, object], done: int = 0) -> list[tuple[int, Share]]:
    (window,) = phase_windows(parse_spec(document(text)).phases)
    return list(feed(window, done, opened(text, home, kind), CPU))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_share_the_global_batch_without_gap_or_overlap(world_size: int) -> None:
    phase = Phase(seq_len=32, global_batch_size=16, micro_batch_size=2, steps=1, lr=1.0)
    shares = [split(phase, 100, rank, world_size) for rank in range(world_size)]
    assert [i for share in shares for batch in share for i in batch] == list(range(100, 116))


def test_the_steps_that_are_left_are_fed_in_order(text: Path, home: Path) -> None:
    with process_group(parse_spec(document(text))):
        assert [step for step, _ in fed(text, home, {}, done=2)] == [3, 4, 5, 6]


@pytest.mark.parametrize("kind", [{}, {"packing": True, "whole_word": True}, {"next_sentence": False}])
def test_every_rank_knows_the_counts_of_the_whole_batch_before_the_step(
    text: Path, home: Path, kind: dict[str, object]
) -> None:
    data, phase = opened(text, home, kind), parse_spec(document(text)).phases[0]
    on_ranks = run_on_ranks(2, fed, text, home, kind)
    for (step, first), (_, second) in zip(*on_ranks, strict=True):
        whole = data.batch(range((step - 1) * phase.global_batch_size, step * phase.global_batch_size))
        pairs = len(whole.next_sentence_labels)
        expected = [len(whole.masked_labels), pairs, whole.n_tokens, whole.n_samples, phase.global_batch_size]
        assert (first.masked, first.pairs) == (second.masked, second.pairs) == (expected[0], expected[1])
        assert (first.sums + second.sums).tolist() == [0, 0, 0, *expected]


def shapes(batch: Batch) -> list[torch.Size]:
    return [each.shape for each in [*batch, *(batch.packed or ())] if isinstance(each, torch.Tensor)]


@pytest.mark.parametrize("kind", [{}, {"packing": True, "whole_word": True}, {"next_sentence": False}])
def test_all_micro_batches_of_a_phase_have_the_same_shapes_and_the_labels_of_their_rows(
    text: Path, home: Path, kind: dict[str, object]
) -> None:
    data = opened(text, home, kind)
    with process_group(parse_spec(document(text))):
        batches = [each for _, share in fed(text, home, kind) for each in share.micro_batches]
    assert len({tuple(shapes(each.batch)) for each in batches}) == 1
    for each in batches:
        exact, labels = data.batch(range(each.first_row, each.first_row + 2)), each.batch.masked_labels
        assert torch.equal(labels[labels != IGNORED], exact.masked_labels)
