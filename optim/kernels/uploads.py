"""Tables of 8-byte words: made on the host, and stored on the device in the memory of a call.

On CUDA the host does not wait for an upload; streams other than its own wait for it on the device. An upload within a
capture belongs to the graph alone.

Shapes: n words in a table; `words_n` is [n].
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .operands import Memory

SPARE = 3
"""How many tables of one size a captured step may upload: gradients for their norm, gradients for the step itself, and
learning rates."""

_HOST = torch.device("cpu")  # named explicitly, because the default device may be another


class _Upload(NamedTuple):
    device: Tensor
    host: Tensor  # a graph that captured the upload reads it again at each replay
    stream: torch.cuda.Stream | None
    uploaded: torch.cuda.Event | None


def resident(memory: Memory, name: str, key: object, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
    """Return what `make` returns, on the device; `make` is called, and the table copied, only where the key is new."""
    key = device, key
    if device.type != "cuda":
        return memory.recall(name, key, lambda: make().to(device))
    stream = torch.cuda.current_stream(device)
    if torch.cuda.is_current_stream_capturing() and not memory.holds(name, key):
        # An upload within a capture happens at each replay and not now, so nothing but the graph may read its table.
        upload = _captured_upload(memory, make(), device)
    else:
        upload = memory.recall(name, key, lambda: _upload(memory, make(), device, stream))
    if torch.cuda.is_current_stream_capturing():
        memory.captured.append(upload)
    elif upload.stream != stream and upload.uploaded is not None:
        stream.wait_event(upload.uploaded)
        upload.device.record_stream(stream)
    return upload.device


def _upload(memory: Memory, table: Tensor, device: torch.device, stream: torch.cuda.Stream) -> _Upload:
    """Copy from pinned memory, so that the host does not wait."""
    words_n = table.view(torch.int64).view(-1)
    spare = _spare(memory, len(words_n))
    spare += [_pinned(words_n) for _ in range(SPARE - len(spare))]
    host_n = _pinned(words_n).copy_(words_n)
    return _Upload(_on(device, host_n, table), host_n, stream, stream.record_event())


def _captured_upload(memory: Memory, table: Tensor, device: torch.device) -> _Upload:
    """Copy in the same way at each replay, from memory that was pinned before the capture if there is any."""
    words_n = table.view(torch.int64).view(-1)
    spare = _spare(memory, len(words_n))
    host_n = (spare.pop() if spare else _pinned(words_n)).copy_(words_n)
    return _Upload(_on(device, host_n, table), host_n, None, None)


def _spare(memory: Memory, n: int) -> list[Tensor]:
    """Return spare pinned memory of n words; a capture needs some, for its gradients lie elsewhere."""
    return memory.recall(f"{n} spare words", None, list)


def _on(device: torch.device, host_n: Tensor, table: Tensor) -> Tensor:
    return host_n.to(device, non_blocking=True).view(table.dtype).view(table.shape)


def _pinned(words_n: Tensor) -> Tensor:
    return torch.empty(words_n.shape, dtype=torch.int64, device=_HOST, pin_memory=True)
