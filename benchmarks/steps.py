"""One training step of a job, as each rank takes it, on batches of random tokens without padding."""

from collections.abc import Callable

import torch
import torch.distributed as dist

from workers.contract.manifests import SHARDS_FORMAT, ShardsManifest, ShardsSettings
from workers.contract.spec.job import JobSpec
from workers.planning.activations import masked_positions
from workers.planning.attempt import Attempt
from workers.samples.batch import Batch
from workers.training.feeding import Share
from workers.training.reporting.telemetry import Sums
from workers.training.step import Worker, set_up, take_step
from workers.training.uploads import MicroBatch

SPECIAL = 5
"""Tokens at the beginning of a vocabulary that are not words."""


def make_worker(spec: JobSpec, vocab_size: int) -> Worker:
    """Return this rank's worker for a vocabulary of so many entries. Every rank calls this."""
    shards = ShardsManifest(
        format=SHARDS_FORMAT,
        text=(),
        settings=ShardsSettings(vocab=vocab_size, lowercase=True),
        tokens=0,
        unknown=0,
        sentences=0,
        documents=0,
        vocab_size=vocab_size,
        special_ids={"[PAD]": 0},
        unigram_entropy_nats=0.0,
        files=(),
    )
    return set_up(spec, shards)


def first_phase_step(worker: Worker, vocab_size: int) -> Callable[[], object]:
    """Return what takes a step of the first phase."""
    spec, phase = worker.spec, worker.spec.phases[0]
    attempt = Attempt(spec, vocab_size, dist.get_world_size(), worker.zero_stage)
    batches = [make_batch(attempt) for _ in range(attempt.micro_batches(phase))]
    share = Share(
        micro_batches=[MicroBatch(number, batch, None) for number, batch in enumerate(batches)],
        sums=torch.zeros(len(Sums._fields), dtype=torch.float64),
        masked=sum(len(batch.masked_labels) for batch in batches) * dist.get_world_size(),
        pairs=sum(len(batch.next_sentence_labels) for batch in batches) * dist.get_world_size(),
    )
    return lambda: take_step(worker, 1, 1e-4, share)


def make_batch(attempt: Attempt) -> Batch:
    """Return a micro-batch of the first phase."""
    phase = attempt.spec.phases[0]
    rows, seq_len = phase.micro_batch_size, phase.seq_len
    ids = torch.randint(SPECIAL, attempt.vocab_size, (rows, seq_len))
    masked = torch.arange(masked_positions(attempt, phase)) * 2 + 1
    labels = torch.zeros(rows if attempt.spec.data.next_sentence else 0, dtype=torch.int64)
    return Batch(
        input_ids=ids,
        token_type_ids=torch.zeros_like(ids),
        attention_mask=torch.ones_like(ids),
        masked_positions=masked,
        masked_labels=ids.flatten()[masked],
        next_sentence_labels=labels,
        n_tokens=ids.numel(),
        n_samples=rows,
    )
