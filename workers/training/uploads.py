"""Bringing batches to the device while it still computes."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from workers.samples.batch import Batch


class MicroBatch(NamedTuple):
    """The rows of one forward pass on one worker."""

    first_row: int
    """Number of the first of them, counted over the whole job."""
    batch: Batch
    """On the host."""
    pinned: Tensor | None
    """The batch flattened, in memory that a GPU reads by itself; None where a CPU computes."""

    @classmethod
    def on_the_way_to(cls, device: torch.device, first_row: int, batch: Batch) -> Self:
        """Lay a batch ready for the device."""
        return cls(first_row, batch, batch.flattened(pin=True) if device.type == "cuda" else None)


class Uploads:
    """Copies micro-batches to a GPU, each with one copy that no computation waits for but its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # not annotated in torch

    def fetch(self, micro_batch: MicroBatch) -> Batch:
        """Return the batch as the device has it. The host waits for nothing."""
        if self._stream is None or micro_batch.pinned is None:
            return micro_batch.batch.to(self._device)
        with torch.cuda.stream(self._stream):
            flat = micro_batch.pinned.to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        flat.record_stream(computing)  # else its memory could be given to the next copy while it is still read
        return micro_batch.batch.over(flat)
