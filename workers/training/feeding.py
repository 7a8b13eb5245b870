"""Each step's batches, made while the step before is computed.

The losses are divided by counts over the global batch: of masked positions and of pairs. How many tokens of a row are
masked is known once the row is drawn, and drawing the 65,536 rows of a large batch takes half a second, too much for
every rank to do. So each rank counts what it has drawn itself, and the ranks add up their counts here, in the thread
that draws ahead and over a group of their hosts. When a step begins, the counts are plain numbers: neither the device
nor another rank is waited for.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from workers import ranks
from workers.contract.phases import PhaseWindow
from workers.contract.spec.phase import Phase
from workers.samples.batch import Batch, Room
from workers.samples.dataset import PreTrainingData
from workers.samples.room import room_of

from .uploads import MicroBatch


class Share(NamedTuple):
    """What one worker computes of a step."""

    micro_batches: list[MicroBatch]
    sums: Tensor
    """(S,) float64, in the order of `telemetry.Sums`: what this worker counts, and 0 for what the device adds. Pinned
    where the device is a GPU."""
    masked: int
    """Masked positions of the global batch."""
    pairs: int
    """Next-sentence labels of the global batch."""


def feed(window: PhaseWindow, done: int, data: PreTrainingData, device: torch.device) -> Iterator[tuple[int, Share]]:
    """Yield the steps of a phase that are left, with this rank's share of each. Every rank calls this."""
    steps, room = window.steps_after(done), room_of(data, window.phase.micro_batch_size)
    with (
        ranks.group_of_hosts() as group,
        ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=_use, initargs=(device,)) as thread,
    ):

        def draw(step: int) -> Share:
            rows = split(window.phase, window.first_row(step), ranks.rank(), ranks.world_size())
            return draw_share(data, rows, device, room, group)

        coming = thread.submit(draw, steps[0])
        for step in steps:
            ready = coming.result()
            if step < steps[-1]:
                coming = thread.submit(draw, step + 1)
            yield step, ready


def split(phase: Phase, first_row: int, rank: int, world_size: int) -> list[range]:
    """Return the numbers of the rows of one rank's micro-batches, for the global batch that begins at `first_row`."""
    size = phase.global_batch_size // world_size
    begin = first_row + rank * size
    return [range(at, at + phase.micro_batch_size) for at in range(begin, begin + size, phase.micro_batch_size)]


def draw_share(
    data: PreTrainingData,
    rows: Sequence[range],
    device: torch.device,
    room: Room,
    group: ProcessGroup | None = None,
) -> Share:
    """Draw the rows of one worker's micro-batches, each padded to `room`. Every rank of the group calls this.

    The ranks add up their counts over `group`, or over that of the workers, if those compute on CPUs.
    """
    batches = [data.batch(each) for each in rows]
    counts = torch.tensor([_counts(batch) for batch in batches]).sum(0)
    totals = counts[:2].clone()
    masked, pairs = ranks.all_reduce_sum(totals, group).tolist()
    sums_S = torch.cat([torch.zeros(3, dtype=torch.float64), counts.double()])
    return Share(
        micro_batches=[
            MicroBatch.on_the_way_to(device, each.start, batch.padded(room))
            for each, batch in zip(rows, batches, strict=True)
        ],
        sums=sums_S.pin_memory() if device.type == "cuda" else sums_S,
        masked=masked,
        pairs=pairs,
    )


def _counts(batch: Batch) -> list[int]:
    """Count what `telemetry.Sums` counts of a batch: masked positions, pairs, tokens, samples and rows."""
    pairs = len(batch.next_sentence_labels)
    return [len(batch.masked_labels), pairs, batch.n_tokens, batch.n_samples, len(batch.input_ids)]


def _use(device: torch.device) -> None:
    """Pin memory for the worker's own GPU: a new thread begins on the first one, and would take memory of it."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
