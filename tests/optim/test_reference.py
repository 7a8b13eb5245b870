import math

import pytest
import torch

from optim.reference import lamb_step


def test_the_first_step_is_what_a_person_computes_by_hand() -> None:
    weight, gradient, zero = torch.tensor([3.0, -4.0]), torch.tensor([0.5, 2.0]), torch.zeros(2)
    made = lamb_step(weight, gradient, zero, zero, 1, lr=0.1, eps=0.0, weight_decay=0.0)
    # The first corrected update is sign(g): norm sqrt(2). The weight's norm is 5.
    ratio = 5 / math.sqrt(2)
    assert made.trust_ratio == pytest.approx(ratio, rel=1e-14)
    torch.testing.assert_close(made.weight, torch.tensor([3 - 0.1 * ratio, -4 - 0.1 * ratio], dtype=torch.float64))
    torch.testing.assert_close(made.exp_avg, 0.1 * gradient.double())
    torch.testing.assert_close(made.exp_avg_sq, 0.001 * gradient.double() ** 2)


def test_the_ratio_is_one_where_a_norm_is_zero() -> None:
    zero, ones = torch.zeros(3), torch.ones(3)
    assert lamb_step(zero, ones, zero, zero, 1).trust_ratio == 1.0
    still = lamb_step(ones, zero, zero, zero, 1, weight_decay=0.0)
    assert still.trust_ratio == 1.0
    assert still.weight.tolist() == [1.0, 1.0, 1.0]


def test_a_lower_bound_lifts_a_zero_weight_norm_before_the_zero_test() -> None:
    zero, ones = torch.zeros(4), torch.ones(4)
    made = lamb_step(zero, ones, zero, zero, 1, eps=0.0, weight_norm_bounds=(1e-3, 10.0))
    assert made.trust_ratio == pytest.approx(1e-3 / 2.0)


def test_the_arguments_are_left_as_they_are() -> None:
    w, g, m, v = tensors = [torch.full((2, 2), value) for value in (1.0, 2.0, 3.0, 4.0)]
    lamb_step(w, g, m, v, 3, max_grad_norm=0.1)
    assert [tensor.tolist() for tensor in tensors] == [[[v, v], [v, v]] for v in (1.0, 2.0, 3.0, 4.0)]
