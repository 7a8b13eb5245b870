"""The class LAMB beside its numbers: settings, states, rates, and what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optim.mxnet import LAMB, Updater
from optim.reference import lamb_step
from tests.optim.oracle import make_tensors

BOUND = st.one_of(st.none(), st.floats(0.1, 20))


@settings(max_examples=25, deadline=None)
@given(
    fused=st.booleans(),
    wd=st.floats(0, 0.5),
    low=BOUND,
    high=BOUND,
    bias_correction=st.booleans(),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0.1, 0.999),
    rescale_grad=st.floats(0.1, 8),
    shape=st.sampled_from([(), (0,), (1,), (7, 3), (2, 0, 3)]),
)
def test_it_is_the_papers_step_with_the_norm_bounded(
    fused: bool,
    wd: float,
    low: float | None,
    high: float | None,
    bias_correction: bool,
    beta1: float,
    beta2: float,
    rescale_grad: float,
    shape: tuple[int, ...],
) -> None:
    weight, *grads = (make_tensors([shape], seed, torch.float32)[0] for seed in range(3))
    w, m, v = weight.double(), torch.zeros(shape).double(), torch.zeros(shape).double()
    optimizer = LAMB(0.02, beta1, beta2, 1e-6, low, high, bias_correction, 4, fused, wd=wd, rescale_grad=rescale_grad)
    updater = Updater(optimizer)
    top = torch.inf if high is None else high
    for t, grad in enumerate(grads, start=1):
        updater(0, grad, weight)
        w, m, v, *_ = lamb_step(
            w,
            grad * rescale_grad,
            m,
            v,
            t,
            lr=0.02,
            betas=(beta1, beta2),
            weight_decay=wd,
            bias_correction=bias_correction,
            weight_norm_bounds=(min(low or 0.0, top), top),  # the upper bound wins where they cross
        )
    torch.testing.assert_close(weight.double(), w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_rescaled_first_and_clipped_second(fused: bool) -> None:
    weight, grad = torch.ones(4), torch.tensor([-8.0, -1.0, 0.5, 4.0])
    updater = Updater(LAMB(beta1=0.0, rescale_grad=0.5, clip_gradient=1.0, use_fused_step=fused))
    updater(0, grad, weight)
    torch.testing.assert_close(updater.states[0][0], torch.tensor([-1.0, -0.5, 0.25, 1.0]))


def test_states_are_float32_zeros_and_half_precision_has_master_weights() -> None:
    weight = torch.ones(2, 3, dtype=torch.float16, requires_grad=True)
    mean, var = LAMB().create_state(0, weight)
    assert (mean.dtype, mean.shape) == (var.dtype, var.shape) == (torch.float32, (2, 3))
    assert not mean.any()
    assert not var.any()
    master, moments = LAMB(multi_precision=True).create_state_multi_precision(0, weight)
    assert isinstance(master, Tensor)
    assert (master.dtype, master.requires_grad, len(moments)) == (torch.float32, False, 2)
    single = torch.ones(2, 3)
    assert isinstance(LAMB(multi_precision=True).create_state_multi_precision(0, single)[1], Tensor)


def test_a_fresh_master_weight_shares_no_memory_with_its_weight() -> None:
    weight = torch.ones(3, dtype=torch.float16)
    master, _ = LAMB(multi_precision=True).create_state_multi_precision(0, weight)
    assert isinstance(master, Tensor)
    master.zero_()
    assert weight.all()


def test_a_master_weight_does_not_see_edits_of_its_weight() -> None:
    weight, grad = torch.ones(3, dtype=torch.float16), torch.ones(3, dtype=torch.float16)
    updater = Updater(LAMB(learning_rate=0.1, multi_precision=True))
    updater(0, grad, weight)
    weight.fill_(100.0)
    updater(0, grad, weight)
    assert weight.max() < 1


def test_leaf_parameters_are_updated_in_place() -> None:
    parameter = torch.nn.Parameter(torch.ones(4))
    parameter.sum().backward()  # type: ignore[no-untyped-call] # torch does not type it
    assert parameter.grad is not None
    address = parameter.data_ptr()
    Updater(LAMB(learning_rate=0.1))(0, parameter.grad, parameter)
    torch.testing.assert_close(parameter.detach(), torch.full((4,), 0.9))
    assert (parameter.data_ptr(), parameter.is_leaf, parameter.requires_grad) == (address, True, True)


@pytest.mark.parametrize("fused", [True, False])
def test_update_is_the_path_that_the_switch_names(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name in ("step", "fused_step"):
        monkeypatch.setattr(LAMB, name, lambda *_, name=name: taken.append(name))
    optimizer = LAMB(use_fused_step=fused)
    optimizer.update([], [], [], [])
    optimizer.update_multi_precision([], [], [], [])
    assert taken == [("fused_step" if fused else "step")] * 2


def test_the_fused_step_may_be_switched_off_by_none() -> None:
    assert LAMB(use_fused_step=None).use_fused_step is False
