import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from benchmarks.counting import Step, moved_bytes, state_bytes, temporary_bytes

N = 1000
X, Y = torch.ones(N), torch.ones(N)

TRAFFIC: dict[str, tuple[Step, int]] = {
    "a sum of two reads both and writes one": (lambda: X + Y, 12),
    "in place it writes what it has read": (lambda: X.add_(Y), 12),
    "what is named twice is read once": (lambda: X.addcmul_(Y, Y), 12),
    "a list counts as its tensors": (lambda: torch._foreach_add_([X], [Y]), 12),
    "a copy does not read its target": (lambda: X.copy_(Y), 8),
    "nor does an output that is given": (lambda: torch.add(X, X, out=Y), 8),
    "a view moves nothing": (lambda: X.view(10, 100).t(), 0),
    "empty memory is not written": (lambda: torch.empty_like(X), 0),
}


@pytest.mark.parametrize("case", TRAFFIC)
def test_moved_bytes(case: str) -> None:
    step, each = TRAFFIC[case]
    assert moved_bytes(step) == each * N


def test_a_norm_reads_its_tensor_and_writes_a_number() -> None:
    assert moved_bytes(X.norm) == 4 * N + 4


def test_the_state_is_what_the_optimizer_keeps_in_tensors() -> None:
    parameter = nn.Parameter(torch.ones(N))
    parameter.grad = torch.ones(N)
    optimizers = AdamW([parameter], fused=True), SGD([parameter], lr=1.0)
    for optimizer in optimizers:
        optimizer.step()
    assert [state_bytes(optimizer) for optimizer in optimizers] == [8 * N + 4, 0]  # two moments and a step


def test_temporaries_are_the_most_that_is_held_at_once() -> None:
    def step() -> None:
        first = X + Y
        second = first + Y
        del first
        (second + Y).sum()

    step()  # so that nothing is made for the first time
    assert 8 * N <= temporary_bytes(step) < 9 * N


def test_a_step_that_works_in_place_has_no_temporaries() -> None:
    assert temporary_bytes(lambda: torch._foreach_mul_([X], [Y])) < 100
