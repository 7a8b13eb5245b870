"""The formats in which moments are stored, in plain PyTorch.

* The weights' own dtype, rounded to nearest.
* bfloat16 under float32 weights: 2 bytes per element.
* 8 bits under float32 weights: a code of a dynamic map and, for each block of 256 elements, the float32 number that the
  block's largest element in magnitude is. The maps are those of bitsandbytes and torchao (Dettmers et al., 8-bit
  Optimizers via Block-wise Quantization, 2022, section 1.3): 1.016 bytes per element.

The two narrow formats round stochastically: to one of the two neighbours, with probabilities that make the mean right;
for codes these are multiples of 2^-15, which moves the mean by at most 2^-16 of the distance between the neighbours.
Rounded to nearest, a second moment would stand still, since beta2 = 0.999 moves it by less than half a unit in its last
place.
The noise is a hash of the element's place in this rank's part of the tensor and of the step, one half of it for each
moment, so a step is reproducible, replicas agree, and every implementation rounds alike.

Shapes: N elements, K blocks of 256 that they fill, the last perhaps in part; `codes_N` is [N].
"""

import functools
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.nn import functional as F

MOMENTS = ("full", "bfloat16", "8bit")
"""The values of `Lamb(moments=...)`."""

HALF = (torch.bfloat16, torch.float16)

BLOCK = 256
"""Elements that share a scale."""

GREATEST = torch.finfo(torch.float32).max

LEAST = torch.finfo(torch.float32).tiny
"""The smallest scale but 0, and about the smallest number whose reciprocal is finite."""

FRACTION = 15
"""Random bits that decide to which of two neighbouring codes a number goes."""

FIRST, SECOND = 0, 1
"""Which moment a number belongs to."""


class Moment(Protocol):
    """One block of a stored moment."""

    def load(self) -> Tensor:
        """Return it in the dtype in which steps are computed."""
        ...

    def store(self, value: Tensor, skip: Tensor) -> None:
        """Write `value` in place, or change no bit where `skip`, a bool scalar, holds."""
        ...


class Plain:
    """A moment in the weights' dtype, of any shape."""

    def __init__(self, values: Tensor, wide: torch.dtype) -> None:
        self._values = values
        self._wide = wide

    def load(self) -> Tensor:
        """Return the moment, in float32 if it is of half precision."""
        return self._values.to(self._wide)

    def store(self, value: Tensor, skip: Tensor) -> None:
        """Round to nearest."""
        self._values.copy_(torch.where(skip, self._values, value.to(self._values.dtype)))


class Place(NamedTuple):
    """Which numbers a block of a moment holds; this determines how they are rounded."""

    begin: int
    """Elements of this rank's part of the tensor that lie before it."""
    step: Tensor
    """float32 scalar on the device."""
    which: int
    """FIRST or SECOND."""

    def noise(self, count: int, bits: int) -> Tensor:
        """Return so many random bits, at most 16, in int64 for each element, [count]."""
        salt = _hash32(self.step.to(torch.int64))
        noise = _hash32(torch.arange(self.begin, self.begin + count, device=self.step.device) ^ salt)
        return noise & (1 << bits) - 1 if self.which == SECOND else noise >> (32 - bits)


class Rounded:
    """bfloat16 [N], rounded stochastically."""

    def __init__(self, values_N: Tensor, place: Place) -> None:
        self._values = values_N
        self._place = place

    def load(self) -> Tensor:
        """Return the moment in float32."""
        return self._values.float()

    def store(self, value: Tensor, skip: Tensor) -> None:
        """Add noise below the last place and cut there; Inf and NaN stay what they are."""
        bits_N = value.float().view(torch.int32).to(torch.int64) + self._place.noise(len(value), 16)
        rounded_N = (bits_N >> 16).to(torch.int16).view(torch.bfloat16)
        rounded_N = torch.where(value.isnan(), torch.nan, rounded_N)
        self._values.copy_(torch.where(skip, self._values, rounded_N))


class Quantised:
    """Codes uint8 [N] and scales float32 [K], rounded stochastically."""

    def __init__(self, codes_N: Tensor, scales_K: Tensor, place: Place) -> None:
        self._codes = codes_N
        self._scales = scales_K
        self._place = place

    def load(self) -> Tensor:
        """Return the moment in float32."""
        return decode(self._codes, self._scales, self._place.which)

    def store(self, value: Tensor, skip: Tensor) -> None:
        """Quantise block by block."""
        noise_N = self._place.noise(len(value), FRACTION)
        codes_N, scales_K = encode(value, self._place.which, noise_N)
        self._codes.copy_(torch.where(skip, self._codes, codes_N))
        self._scales.copy_(torch.where(skip, self._scales, scales_K))


def _hash32(x: Tensor) -> Tensor:
    """Mix 32 bits (Wellons, hash-prospector, "lowbias32"); products wrap in int64, which leaves the low half right."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def dynamic_map(which: int, device: torch.device) -> Tensor:
    """Return what the codes stand for, float32 [256], ascending from -1 (first) or 0 (second) to 1.

    Seven decades down from 1, each with twice the numbers of the one below. Signed, the largest is +1 and the smallest
    -0.993; a block's scale has the sign that makes its largest element +1.
    """
    # FakeTensorMode refuses tensors from outside, and its own must not be remembered for others.
    return _map(which, device) if detect_fake_mode() is None else _map.__wrapped__(which, device)


@functools.cache
def _map(which: int, device: torch.device) -> Tensor:
    magnitudes = []
    for decade in range(7):
        count = 2 ** (decade + (which == SECOND))
        width = 0.9 / count
        magnitudes += [10.0 ** (decade - 6) * (0.1 + width * (i + 0.5)) for i in range(count)]
    negative = [] if which == SECOND else [-x for x in magnitudes]
    return torch.tensor(sorted([*negative, 0.0, *magnitudes, 1.0]), dtype=torch.float32, device=device)


def decode(codes_N: Tensor, scales_K: Tensor, which: int) -> Tensor:
    """Return float32 [N] from codes, uint8, and scales, float32."""
    units_N = dynamic_map(which, codes_N.device)[codes_N.long()]
    return (_blocks(units_N) * scales_K[:, None]).view(-1)[: len(codes_N)]


def encode(value_N: Tensor, which: int, noise_N: Tensor | int = 1 << (FRACTION - 1)) -> tuple[Tensor, Tensor]:
    """Return codes, uint8 [N], and scales, float32 [K], of float32 numbers.

    An element goes to its upper neighbour if the part of the way to it that lies behind the element, in units of
    2^-15, and its noise, in [0, 2^15), come to 2^15: to the nearer one by default. What was decoded then goes back to
    the same bits. A second moment that is not 0 never becomes 0, for the update is divided by its root; nor does one
    that overflowed become a scale of Inf, which would make a block of NaN.
    """
    map_256 = dynamic_map(which, value_N.device)
    blocks_K256 = _blocks(value_N)
    scales_K1 = _scales(blocks_K256, which)
    unit_N = (blocks_K256 * (1 / torch.where(scales_K1 == 0, 1.0, scales_K1))).view(-1)[: len(value_N)]
    unit_N = unit_N.nan_to_num(nan=1.0).clamp(-1, 1)
    low_N = (torch.bucketize(unit_N, map_256, right=True) - 1).clamp(0, 254)
    fraction_N = (unit_N - map_256[low_N]) / (map_256[low_N + 1] - map_256[low_N])
    codes_N = low_N + (((fraction_N.clamp(0, 1) * 2**FRACTION).round().to(torch.int64) + noise_N) >> FRACTION)
    if which == SECOND:
        codes_N = torch.where(unit_N > 0, codes_N.clamp(min=1), codes_N)
    return codes_N.to(torch.uint8), scales_K1.view(-1)


def _scales(blocks_K256: Tensor, which: int) -> Tensor:
    """Return of each block the element that is largest in magnitude, the negative one of two, or NaN, [K, 1].

    A smaller scale than LEAST, of which the reciprocal may be Inf, becomes LEAST.
    """
    high_K1, low_K1 = blocks_K256.amax(dim=1, keepdim=True), blocks_K256.amin(dim=1, keepdim=True)
    scales_K1 = torch.where(high_K1 > -low_K1, high_K1, low_K1) if which == FIRST else high_K1.clamp(max=GREATEST)
    small_K1 = (scales_K1 != 0) & (scales_K1.abs() < LEAST)
    return torch.where(small_K1, LEAST, scales_K1)


def _blocks(flat_N: Tensor) -> Tensor:
    """Return [K, 256], the last block filled up with zeros."""
    return F.pad(flat_N, (0, -len(flat_N) % BLOCK)).view(-1, BLOCK)
