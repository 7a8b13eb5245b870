"""The step in one launch beside three, where thousands of programs run at once: `scripts/gpu-check` runs these tests.

Only a GPU can show that its programs wait for each other as they should; Triton's interpreter runs one at a time.
"""

import torch

from tests.optim.kernels.cuda.cases import clip_of, make_operands, written
from tests.optim.kernels.cuda.test_whole import in_one_launch, in_three

SHAPES = [(30522, 256), *[(1024, 1024), (1024,), (7,)] * 6, (4096, 1024), (1024, 4096), (0, 3), (2050,)]
STEPS = 50


def test_large_tensors_get_the_same_bits_in_one_launch_and_in_three_step_after_step() -> None:
    one, three = (make_operands(SHAPES, torch.float32) for _ in range(2))
    clip = clip_of(one, 1.0)
    for _ in range(STEPS):
        assert torch.equal(in_one_launch(one, clip), in_three(three, clip))
    for some, others in zip(written(one), written(three), strict=True):
        assert torch.equal(some, others)
