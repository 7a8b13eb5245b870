"""One optimizer step of one worker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from optim import Lamb
from workers import ranks
from workers.contract.manifests import ShardsManifest
from workers.contract.spec.job import JobSpec
from workers.model import sharding
from workers.model.bert import PretrainingBert, build
from workers.samples.batch import Batch
from workers.samples.draws import Purpose, draw

from .optimizer import build_optimizer, set_lr


class MicroBatch(NamedTuple):
    """The rows of one forward pass on one worker."""

    first_row: int
    """Number of the first of them, counted over the whole job."""
    batch: Batch


@dataclass(frozen=True, slots=True)
class Worker:
    """What one worker computes with."""

    spec: JobSpec
    device: torch.device
    module: PretrainingBert
    model: nn.Module
    """`module` as it is spread over the workers; forward goes through it."""
    optimizer: Lamb
    zero_stage: int
    """Of this attempt, also where the job leaves it open."""


def set_up(spec: JobSpec, shards: ShardsManifest, begin: Callable[[PretrainingBert], None] | None = None) -> Worker:
    """Build the model, spread it over the workers, and build its optimizer. Every rank calls this.

    `begin` may change the weights before they are spread.
    """
    device = sharding.device_of(spec)
    if device.type == "cpu":
        torch.set_num_threads(spec.parallel.cpus_per_worker)
    else:
        torch.cuda.set_device(device)
    pad_id, next_sentence = shards.special_ids["[PAD]"], spec.data.next_sentence
    module = build(spec.model, shards.vocab_size, spec.seed, pad_id=pad_id, next_sentence=next_sentence)
    if begin:
        begin(module)
    stage = sharding.choose_stage(spec, shards.vocab_size, device)
    model = sharding.parallelize(module, spec, device, stage)
    return Worker(spec, device, module, model, build_optimizer(spec, module), stage)


def take_step(worker: Worker, step: int, lr: float, micro_batches: Sequence[MicroBatch]) -> Tensor:
    """Accumulate the gradients of this rank's micro-batches and take one optimizer step.

    Returns:
        What this rank counted, float64, in the order of `telemetry.Sums`.
    """
    spec, model, optimizer = worker.spec, worker.model, worker.optimizer
    local = torch.tensor([0.0, 0.0, 0.0, *_counts(micro_batches)], dtype=torch.float64, device=worker.device)
    n_masked, n_pairs = ranks.all_reduce_sum(local[[3, 4]]).float().unbind()
    set_lr(optimizer, lr)
    for number, (first_row, batch) in enumerate(micro_batches, start=1):
        torch.manual_seed(dropout_seed(spec.seed, step, first_row))
        with sharding.micro_batch(model, spec, worker.zero_stage, is_last=number == len(micro_batches)):
            sums = model(batch.to(worker.device))
            loss = sums.mlm_loss / n_masked + sums.nsp_loss / n_pairs.clamp(min=1)  # without pairs there is no loss
        # FSDP2 and DDP average gradients over the workers; the loss is already a mean over the global batch.
        (loss * ranks.world_size()).backward()
        local[:3] += torch.stack(sums).detach()
    optimizer.step()
    optimizer.zero_grad()
    return local


def dropout_seed(seed: int, step: int, first_row: int) -> int:
    """Return the seed, of 64 bits, of a micro-batch's dropout.

    It does not depend on which worker computes the micro-batch, so the number of workers does not change the curve.
    The size of the micro-batches does: they begin at other rows then.
    """
    return int(draw(seed, Purpose.DROPOUT, np.array([step]), first_row)[0])


def _counts(micro_batches: Sequence[MicroBatch]) -> list[int]:
    """Count what `telemetry.Sums` counts of batches: masked positions, pairs, tokens, samples and rows."""
    each = [
        (len(b.masked_labels), len(b.next_sentence_labels), b.n_tokens, b.n_samples, len(b.input_ids))
        for _, b in micro_batches
    ]
    return [sum(column) for column in zip(*each, strict=True)]
