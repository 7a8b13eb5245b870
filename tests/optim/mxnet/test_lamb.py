"""The class LAMB beside its numbers: settings, states, rates, and what it refuses."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from optim.mxnet import LAMB, PolyScheduler, Updater
from optim.reference import lamb_step
from tests.optim.oracle import make_tensors
from tests.ranks import run_on_ranks

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


def test_the_number_of_updates_is_the_greatest_count_of_any_tensor() -> None:
    optimizer = LAMB(begin_num_update=2)
    optimizer._update_count([0])
    optimizer._update_count([0])
    optimizer._update_count([1])
    assert (optimizer.num_update, optimizer._index_update_count) == (4, {0: 4, 1: 3})


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


def test_the_first_multiplier_that_is_found_counts_alone() -> None:
    live = {0: SimpleNamespace(lr_mult=2.0, wd_mult=3.0)}
    optimizer = LAMB(learning_rate=1.0, wd=1.0, param_dict=live, param_idx2name={0: "a", 1: "b", 2: "c"})
    optimizer.set_lr_mult({0: 5.0, 1: 7.0, "b": 11.0, "c": 13.0})
    optimizer.set_wd_mult({"a": 5.0, "c": 0.0})
    assert optimizer._get_lrs([0, 1, 2, 3]) == [2.0, 7.0, 13.0, 1.0]
    assert optimizer._get_wds([0, 1, 2, 3]) == [3.0, 1.0, 0.0, 1.0]
    live[0].lr_mult = 4.0
    assert optimizer._get_lrs([0]) == [4.0]


def test_multipliers_are_replaced_and_not_merged() -> None:
    optimizer = LAMB(learning_rate=1.0)
    optimizer.set_lr_mult({0: 2.0})
    optimizer.set_lr_mult({1: 3.0})
    assert optimizer._get_lrs([0, 1]) == [1.0, 3.0]


def test_a_multiplier_of_zero_freezes_the_weight_and_not_its_moments() -> None:
    weight, grad = torch.ones(3), torch.ones(3)
    updater = Updater(LAMB(learning_rate=0.1))
    updater.optimizer.set_lr_mult({0: 0.0})
    updater(0, grad, weight)
    assert torch.equal(weight, torch.ones(3))
    assert isinstance(updater.states[0][1], Tensor)
    assert updater.states[0][0].all()
    assert updater.states[0][1].all()


def test_the_learning_rate_is_the_schedulers_where_there_is_one() -> None:
    assert LAMB().learning_rate == 0.001
    assert LAMB(learning_rate=None).learning_rate == 0.01
    optimizer = LAMB(learning_rate=None, lr_scheduler=PolyScheduler(max_update=10, base_lr=0.5, pwr=1))
    optimizer.num_update = 5
    assert optimizer.learning_rate == pytest.approx(0.25)
    with pytest.raises(UserWarning, match="lr_scheduler sets the rate; set lr_scheduler to None"):
        optimizer.set_learning_rate(0.1)
    optimizer.lr_scheduler = None
    optimizer.set_learning_rate(0.1)
    assert optimizer.learning_rate == 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": -1.0}, ValueError, r"learning_rate is -1\.0"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate is 'fast'"),
        ({"beta1": 1.0}, ValueError, r"beta1 is 1\.0; it must be less than 1"),
        ({"beta2": -0.1}, ValueError, r"beta2 is -0\.1"),
        ({"epsilon": float("nan")}, ValueError, "epsilon is nan"),
        ({"wd": -0.1}, ValueError, r"wd is -0\.1"),
        ({"lower_bound": "a"}, TypeError, "lower_bound is 'a'"),
        ({"upper_bound": float("nan")}, ValueError, "upper_bound is nan"),
        ({"clip_gradient": True}, TypeError, "clip_gradient is True"),
        ({"rescale_grad": None}, TypeError, "rescale_grad is None"),
        ({"aggregate_num": 46}, ValueError, "aggregate_num is 46; it must be from 0 to 45"),
        ({"aggregate_num": 46, "use_fused_step": False}, ValueError, "aggregate_num is 46"),
        ({"aggregate_num": None}, TypeError, "aggregate_num is None"),
        ({"aggregate_num": float("inf")}, TypeError, "aggregate_num is inf"),
        ({"begin_num_update": -1}, ValueError, "begin_num_update is -1"),
        ({"bias_correction": None}, TypeError, "bias_correction is None; it must be True or False"),
        ({"multi_precision": "no"}, TypeError, "multi_precision is 'no'"),
        ({"use_fused_step": "no"}, TypeError, "use_fused_step is 'no'"),
        ({"lr_scheduler": 0.1, "learning_rate": None}, TypeError, r"lr_scheduler is 0\.1; it must be a callable"),
        ({"lr_scheduler": float}, TypeError, "base_lr learning_rate would replace; set learning_rate=None"),
        ({"param_idx2name": ["ab"]}, TypeError, r"param_idx2name is \['ab'\]; it must be a dict"),
        ({"param_dict": [1]}, TypeError, r"param_dict is \[1\]; it must be a dict"),
        ({"momentum": 0.9}, TypeError, "momentum"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LAMB(**arguments)


def test_a_wrong_rate_or_multiplier_is_refused_when_it_is_set() -> None:
    optimizer = LAMB()
    with pytest.raises(TypeError, match=r"learning_rate is tensor\(nan\); it must be a number"):
        optimizer.set_learning_rate(torch.tensor(torch.nan))  # type: ignore[arg-type]
    for setter in (optimizer.set_lr_mult, optimizer.set_wd_mult):
        with pytest.raises(TypeError, match=r"_mult\[0\] is 'a'; it must be a number"):
            setter({0: "a"})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="_mult is None; it must be a dict"):
            setter(None)  # type: ignore[arg-type]
    assert (optimizer.lr, optimizer.lr_mult, optimizer.wd_mult) == (0.001, {}, {})


def test_a_schedule_may_be_any_callable_that_no_rate_replaces() -> None:
    def schedule(num_update: int) -> float:
        return 0.5 / (1 + num_update)

    optimizer = LAMB(learning_rate=None, lr_scheduler=schedule)  # type: ignore[arg-type]
    Updater(optimizer)(0, torch.ones(3), torch.ones(3))
    assert optimizer.learning_rate == 0.25


def test_the_fused_step_may_be_switched_off_by_none() -> None:
    assert LAMB(use_fused_step=None).use_fused_step is False


STATE = (torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ((0, [torch.ones(3)], [torch.ones(3)], [STATE]), TypeError, "indices is int; it must be a list"),
        (([0], torch.ones(3), [torch.ones(3)], [STATE]), TypeError, "weights is Tensor; it must be a list"),
        (([0, 1], [torch.ones(3)], [torch.ones(3)], [STATE]), ValueError, "indices 2, weights 1, grads 1, states 1"),
        (([7, 7], [torch.ones(3)] * 2, [torch.ones(3)] * 2, [STATE] * 2), ValueError, r"indices is \[7, 7\]"),
        (([7], [[1.0]], [torch.ones(3)], [STATE]), TypeError, "the weight of index 7 is list"),
        (
            ([7], [torch.ones(3)], [torch.ones(3).to_sparse()], [STATE]),
            TypeError,
            "gradient of index 7 is torch.sparse",
        ),
        (([7], [torch.ones(3).double()], [torch.ones(3)], [STATE]), TypeError, "torch.float64; make it float32"),
        (([7], [torch.ones(3).half()], [torch.ones(3)], [STATE]), TypeError, "float16; set multi_precision=True"),
        (([7], [torch.ones(3)], [torch.ones(3)], [None]), TypeError, "state of index 7 is NoneType"),
        (
            ([7], [torch.ones(3)], [torch.ones(3)], [(STATE[0], None)]),
            TypeError,
            "state of index 7 is tuple, and neither",
        ),
        (([7], [torch.ones(3)], [torch.ones(3)], [(STATE[0], STATE[:1])]), TypeError, "neither .mean, var. nor"),
        (
            ([7], [torch.ones(3)], [torch.ones(3)], [(STATE[0], STATE[1].half())]),
            TypeError,
            "var of index 7 is .*float16",
        ),
        (
            ([7], [torch.ones(3)], [torch.ones(3)], [(STATE[0].long(), STATE[1])]),
            TypeError,
            "mean of index 7 is .*int64",
        ),
        (([7], [torch.ones(3)], [torch.ones(3)], [(STATE[0].double(), STATE)]), TypeError, "weight32 of index 7 is"),
        (([7], [torch.ones(3)], [torch.ones(3).long()], [STATE]), TypeError, "gradient of index 7 is torch.int64"),
        (([7], [torch.ones(3)], [torch.ones(3) + 1j], [STATE]), TypeError, "gradient of index 7 is torch.complex"),
        (([7], [torch.ones(1).expand(3)], [torch.ones(3)], [STATE]), TypeError, "weight of index 7 has .*: clone it"),
        (([7], [torch.ones(3)], [torch.ones(1)], [STATE]), ValueError, r"gradient of index 7 is \(1,\) on cpu"),
        (([7], [torch.ones(2)], [torch.ones(2)], [STATE]), ValueError, r"mean of index 7 is \(3,\) on cpu"),
        (([7], [torch.ones(3, device="meta")], [torch.ones(3)], [STATE]), ValueError, "on cpu but its weight"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_written(
    call: tuple[Any, Any, Any, Any], error: type[Exception], message: str
) -> None:
    optimizer = LAMB()
    for method in (optimizer.step, optimizer.fused_step):
        with pytest.raises(error, match=message):
            method(*call)
    assert not STATE[0].any()
    assert (optimizer.num_update, optimizer._index_update_count) == (0, {})


def update_a_shard() -> None:
    weight = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Shard(0)])
    with pytest.raises(TypeError, match=r"the weight of index 0 is a sharded DTensor; optim\.Lamb updates such"):
        Updater(LAMB())(0, torch.ones(4), weight)


def test_a_sharded_tensor_is_refused() -> None:
    run_on_ranks(1, update_a_shard)
