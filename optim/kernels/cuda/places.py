"""What kernels are told of the tensors of a call, and where it stands.

T = tensors, B = chunks, so many elements of one tensor that a program takes.

* `layout`: int64 [2·T + B], number of elements and first chunk of each tensor, then the tensor of each chunk.
* `addresses`: int64 [7, T], of weights, first moments, second moments, steps (float32 scalars), copies in half
  precision and scales of the first and of the second moments (0 where there are none). Those of gradients, which move
  more often, are int64 [T] of their own.
* `settings`: float64 [T, 13], the columns of `operators` and log(beta1) and log(beta2); both are -inf where bias
  correction is off, so that beta^t = exp(t·log(beta)) is 0 and what the moments are divided by is 1.
* `clip`: float64 [3], norm of the gradients, the factor on them, and 1 if the step is skipped.
* `maps`: float32 [2·256 + 7], what the codes of 8-bit moments stand for, of the first and of the second, and the powers
  of ten by which the numbers of each decade are multiplied to lie below 1, from the lowest up.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# Triton reads an annotation as the type of an argument, and only constants and scalars need one.

import triton
import triton.language as tl

WEIGHTS = tl.constexpr(0)
EXP_AVGS = tl.constexpr(1)
EXP_AVG_SQS = tl.constexpr(2)
STEPS = tl.constexpr(3)
COPIES = tl.constexpr(4)
FIRST_SCALES = tl.constexpr(5)
SECOND_SCALES = tl.constexpr(6)

BETA1 = tl.constexpr(0)
BETA2 = tl.constexpr(1)
BETA3 = tl.constexpr(2)
EPS = tl.constexpr(3)
WEIGHT_DECAY = tl.constexpr(4)
WEIGHT_LOW = tl.constexpr(5)
WEIGHT_HIGH = tl.constexpr(6)
RATIO_LOW = tl.constexpr(7)
RATIO_HIGH = tl.constexpr(8)
BIAS_CORRECTION = tl.constexpr(9)
LAYER_ADAPTATION = tl.constexpr(10)
LOG_BETA1 = tl.constexpr(11)
LOG_BETA2 = tl.constexpr(12)
COLUMNS = tl.constexpr(13)


@triton.jit
def step_pointer(addresses, t, T):
    """Return where the step count of tensor t lies."""
    return tl.load(addresses + STEPS * T + t).to(tl.pointer_type(tl.float32))


@triton.jit
def pointer(addresses, ROW: tl.constexpr, t, T, start, TYPE: tl.constexpr, VECTOR: tl.constexpr):
    """Return where the part of tensor t begins whose first element is `start`; VECTOR of them divide its address."""
    base = tl.load(addresses + ROW * T + t).to(tl.pointer_type(TYPE))
    return tl.multiple_of(base, VECTOR * TYPE.primitive_bitwidth // 8) + start
