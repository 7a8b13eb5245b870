"""One optimizer step of one worker."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from optim import Lamb
from workers import ranks
from workers.contract.manifests import ShardsManifest
from workers.contract.spec.job import JobSpec
from workers.model import sharding
from workers.model.bert import PretrainingBert, build
from workers.model.compilation import compile_parts, compiles
from workers.samples.draws import Purpose, draw

from .feeding import Share
from .optimizer import build_optimizer, set_lr
from .reporting.clock import Mark, StepClock
from .uploads import Uploads


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
    uploads: Uploads
    clock: StepClock


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
    if compiles(spec, device):
        compile_parts(module, len(spec.phases))
    stage = sharding.choose_stage(spec, shards.vocab_size, device)
    model = sharding.parallelize(module, spec, device, stage)
    optimizer, clock = build_optimizer(spec, module), StepClock(device, stage)
    return Worker(spec, device, module, model, optimizer, stage, Uploads(device), clock)


def take_step(worker: Worker, step: int, lr: float, share: Share) -> Tensor:
    """Accumulate the gradients of this rank's micro-batches and take one optimizer step.

    The host waits for the device nowhere in it.

    Returns:
        What this rank counted, float64, in the order of `telemetry.Sums`.
    """
    spec, model, optimizer, clock = worker.spec, worker.model, worker.optimizer, worker.clock
    clock.mark(Mark.BEGIN)
    sums_S = share.sums.to(worker.device, non_blocking=True, copy=True)
    # FSDP2 and DDP average gradients over the workers; the losses are to be means over the global batch.
    mlm_weight = ranks.world_size() / share.masked
    nsp_weight = ranks.world_size() / max(share.pairs, 1)  # without pairs there is no loss
    set_lr(optimizer, lr)
    for number, micro_batch in enumerate(share.micro_batches, start=1):
        if is_last := number == len(share.micro_batches):
            clock.mark(Mark.LAST)
        torch.manual_seed(dropout_seed(spec.seed, step, micro_batch.first_row))
        with sharding.micro_batch(model, spec, worker.zero_stage, is_last=is_last):
            sums = model(worker.uploads.fetch(micro_batch))
            loss = sums.mlm_loss * mlm_weight + sums.nsp_loss * nsp_weight
        if number == 1:
            clock.mark(Mark.GATHERED)
        loss.backward()
        sums_S[:3] += torch.stack(sums).detach()
    clock.mark(Mark.COMPUTED)
    optimizer.step()
    optimizer.zero_grad()
    clock.mark(Mark.END)
    return sums_S


def dropout_seed(seed: int, step: int, first_row: int) -> int:
    """Return the seed, of 64 bits, of a micro-batch's dropout.

    It does not depend on which worker computes the micro-batch, so the number of workers does not change the curve.
    The size of the micro-batches does: they begin at other rows then.
    """
    return int(draw(seed, Purpose.DROPOUT, np.array([step]), first_row)[0])
