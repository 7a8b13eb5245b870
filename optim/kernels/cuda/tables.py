"""The tables that kernels read, made on the host and kept on the device as long as the same ones are asked for.

Training with stable addresses uploads nothing. Where gradients move, as they do when `zero_grad` frees them, one small
table is uploaded: 8 bytes a tensor.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from optim.kernels.moments import FIRST, SECOND, dynamic_map

from . import places

KEPT = 64
"""Tables that the cache holds; a step asks for five a batch."""

SPARE = 2
"""Tables of gradients that a captured step uploads: one for their norm and one for the step itself."""

ALIGNMENT = 16
"""Bytes that a thread reads at a time where every tensor allows it."""

_HOST = torch.device("cpu")  # said where tensors are made, for the default device may be another
_BETAS = [places.BETA1.value, places.BETA2.value]


class Layout(NamedTuple):
    """How tensors are cut into chunks: the kernels' `layout` int64 [2·T + chunks], on the device."""

    table: Tensor
    chunks: int


class Addresses(NamedTuple):
    """Where tensors lie: int64 [lists, T] on the device, and whether 16-byte accesses reach them."""

    table: Tensor
    aligned: bool


class _Resident(NamedTuple):
    device: Tensor
    host: Tensor  # a graph that captured the upload reads it again at each replay
    source: object  # what the key is the identity of stays alive, so the key stays its own
    stream: torch.cuda.Stream | None
    uploaded: torch.cuda.Event | None


_cache: OrderedDict[Hashable, _Resident] = OrderedDict()
_captured: list[_Resident] = []
"""What CUDA graphs may read at any time to come; a graph cannot tell when it is gone, so these are never freed."""

_spare: dict[int, list[Tensor]] = {}
"""Pinned memory by its number of words, for captures: the gradients of a graph lie where none lay before it, and pinned
memory is better not allocated while a stream is captured."""


def layout(tensors: Sequence[Tensor], chunk: int) -> Layout:
    """Return how tensors of these sizes are cut into chunks of so many elements."""
    sizes = tuple([tensor.numel() for tensor in tensors])

    def make() -> Tensor:
        numel = torch.tensor(sizes, dtype=torch.int64, device=_HOST)
        chunks = -(-numel // chunk)
        owners = torch.repeat_interleave(torch.arange(len(sizes), device=_HOST), chunks)
        return torch.cat([numel, chunks.cumsum(0) - chunks, owners])

    table = _resident(("layout", chunk, sizes), tensors[0].device, make)
    return Layout(table, len(table) - 2 * len(sizes))


def addresses(*lists: Sequence[Tensor], steps: Sequence[Tensor] = ()) -> Addresses:
    """Return where the tensors of each list lie, and where the steps, which only scalar accesses read, in a last row.

    An empty list has a row of zeros.
    """
    wide = tuple([tuple([tensor.data_ptr() for tensor in each]) or (0,) * len(lists[0]) for each in lists])
    rows = (*wide, tuple([step.data_ptr() for step in steps])) if steps else wide
    where = lists[0][0].device
    table = _resident(("addresses", rows), where, lambda: torch.tensor(rows, dtype=torch.int64, device=_HOST))
    return Addresses(table, _are_aligned(wide))


@functools.lru_cache(maxsize=KEPT)
def _are_aligned(rows: tuple[tuple[int, ...], ...]) -> bool:
    return not any(address % ALIGNMENT for row in rows for address in row)


def settings(table: Tensor, device: torch.device) -> Tensor:
    """Return the kernels' settings, float64 [T, 13], of a table that nobody writes to any more, float64 [T, 11]."""

    def make() -> Tensor:
        corrected = table[:, [places.BIAS_CORRECTION.value]] != 0
        logarithms = torch.where(corrected, table[:, _BETAS].log(), -torch.inf)
        return torch.cat([table, logarithms], dim=1)

    return _resident(("settings", id(table)), device, make, table)


def maps(device: torch.device) -> Tensor:
    """Return what the codes of 8-bit moments stand for, float32 [2, 256]."""
    return _resident(("maps",), device, lambda: torch.stack([dynamic_map(which, _HOST) for which in (FIRST, SECOND)]))


def _resident(key: Hashable, device: torch.device, make: Callable[[], Tensor], source: object = None) -> Tensor:
    """Return what `make` returns, on the device; `make` is called, and the host copies, only where it is not there."""
    if device.type != "cuda":
        return _remember((key, device), lambda: _Resident(make().to(device), torch.empty(0), source, None, None)).device
    stream = torch.cuda.current_stream(device)
    if torch.cuda.is_current_stream_capturing():
        # What was there before the capture is there when it is replayed; an upload within it happens only then.
        entry = _cache.get((key, device)) or _upload(make(), device, stream, source)
        _captured.append(entry)
        return entry.device
    entry = _remember((key, device), lambda: _upload(make(), device, stream, source))
    if entry.stream != stream and entry.uploaded is not None:
        stream.wait_event(entry.uploaded)
        entry.device.record_stream(stream)
    return entry.device


def _remember(key: Hashable, make: Callable[[], _Resident]) -> _Resident:
    if key not in _cache:
        _cache[key] = make()
    _cache.move_to_end(key)
    if len(_cache) > KEPT:
        _cache.popitem(last=False)
    return _cache[key]


def _upload(table: Tensor, device: torch.device, stream: torch.cuda.Stream, source: object) -> _Resident:
    """Copy from pinned memory, so that the host does not wait."""
    words = table.view(torch.int64)
    capturing = torch.cuda.is_current_stream_capturing()
    spare = _spare.setdefault(words.numel(), [])
    host = spare.pop() if capturing and spare else _pinned(words.numel())
    host.copy_(words.view(-1))
    resident = host.to(device, non_blocking=True).view(table.dtype).view(table.shape)
    if capturing:
        return _Resident(resident, host, source, stream, None)
    spare += [_pinned(words.numel()) for _ in range(SPARE - len(spare))]
    return _Resident(resident, host, source, stream, stream.record_event())


def _pinned(words: int) -> Tensor:
    return torch.empty(words, dtype=torch.int64, device=_HOST, pin_memory=True)
