from pathlib import Path

import torch

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.manifests import read_shards
from workers.corpus.prepare import prepare
from workers.ranks import process_group
from workers.samples.dataset import PreTrainingData
from workers.training.step import MicroBatch, dropout_seed, set_up, take_step


def test_the_seed_of_dropout_differs_with_seed_step_and_first_row_and_stays_the_same() -> None:
    seeds = {
        dropout_seed(seed, step, sample) for seed in range(5) for step in range(1, 9) for sample in range(0, 256, 8)
    }
    assert len(seeds) == 5 * 8 * 32
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert dropout_seed(42, 7, 1024) == DROPOUT_OF_42_7_1024


DROPOUT_OF_42_7_1024 = 16051565744320596497
"""Pinned: another value would give every run that is resumed another curve."""


def gradients(text: Path, home: Path, sizes: list[int], dropout: float) -> dict[str, torch.Tensor]:
    """The first moment after one step over the same samples, cut into micro-batches of these sizes."""
    spec = parse_spec(document(text, model=document(text)["model"] | {"dropout": dropout}))
    corpus = prepare(spec.data, home)
    data = PreTrainingData(corpus, seq_len=32, seed=spec.seed)
    with process_group(spec):
        worker = set_up(spec, read_shards(corpus))
        at, micro_batches = 0, []
        for size in sizes:
            micro_batches.append(MicroBatch(at, data.batch(range(at, at + size))))
            at += size
        take_step(worker, 1, 1e-3, micro_batches)
        return {name: worker.optimizer.state[p]["exp_avg"] for name, p in worker.module.named_parameters()}


def test_without_dropout_the_size_of_the_micro_batches_does_not_matter_and_with_it_it_does(
    text: Path, tmp_path: Path
) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    without = [gradients(text, tmp_path, sizes, 0.0)[name] for sizes in ([2, 2], [4])]
    torch.testing.assert_close(without[0], without[1])
    with_dropout = [gradients(text, tmp_path, sizes, 0.1)[name] for sizes in ([2, 2], [4])]
    assert not torch.allclose(with_dropout[0], with_dropout[1])


def test_dropout_does_not_depend_on_what_was_drawn_before(text: Path, tmp_path: Path) -> None:
    first = gradients(text, tmp_path, [2, 2], 0.1)
    torch.rand(1000)
    second = gradients(text, tmp_path, [2, 2], 0.1)
    assert all(torch.equal(first[name], second[name]) for name in first)
