import copy
import io
import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from optim import Lamb
from tests.optim.oracle import SWITCHES, Oracle, make_tensors

SHAPES = [(0,), (1,), (7,), (15,), (16,), (17,), (1023,), (13, 29), (3, 5, 7), ()]
VARIANTS = [
    {},
    {"weight_norm_bounds": (1e-3, 10.0)},
    {"max_grad_norm": 1.0},
    {"trust_ratio_bounds": (0.01, 0.3), "bias_correction": False},
]


def make_parameters(shapes: Sequence[Sequence[int]], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(tensor) for tensor in make_tensors(shapes, 0, dtype)]


def give_gradients(parameters: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Set new gradients and return copies, so that neither side can change the other's."""
    gradients = make_tensors([p.shape for p in parameters], seed, parameters[0].dtype)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return gradients


def train(steps: int = 3, shapes: Sequence[Sequence[int]] = ((5, 3), (4,)), **switches: Any) -> list[Tensor]:
    parameters = make_parameters(shapes)
    optimizer = Lamb(parameters, lr=0.05, **switches)
    for step in range(1, steps + 1):
        give_gradients(parameters, step)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("switches", [*VARIANTS, *SWITCHES], ids=str)
def test_four_steps_follow_the_oracle_for_every_switch(switches: dict[str, Any], backend: str) -> None:
    parameters = make_parameters(SHAPES)
    optimizer = Lamb(parameters, lr=0.05, backend=backend, **switches)
    oracle = Oracle(parameters)
    for step in range(1, 5):
        made = oracle.step(give_gradients(parameters, step), lr=0.05, **switches)
        optimizer.step()
        last = optimizer.last_step
        assert last is not None
        for i, parameter in enumerate(parameters):
            torch.testing.assert_close(parameter.detach(), oracle.weights[i], rtol=1e-12, atol=1e-14)
            assert last.trust_ratio[i].item() == pytest.approx(made[i].trust_ratio, rel=1e-12)
            assert last.weight_norm[i].item() == pytest.approx(made[i].weight_norm, rel=1e-12)
            assert last.update_norm[i].item() == pytest.approx(made[i].update_norm, rel=1e-12)
        assert last.clip_coef.item() == pytest.approx(made[0].clip_coef, rel=1e-12)


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 1e-5, 1e-6), (torch.bfloat16, 2e-2, 2e-2)])
def test_short_dtypes_stay_near_the_oracle(dtype: torch.dtype, rtol: float, atol: float) -> None:
    parameters = make_parameters(SHAPES, dtype)
    optimizer, oracle = Lamb(parameters, lr=0.01, max_grad_norm=1.0), Oracle(parameters)
    for step in range(1, 4):
        oracle.step(give_gradients(parameters, step), lr=0.01, max_grad_norm=1.0)
        optimizer.step()
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        assert parameter.dtype is optimizer.state[parameter]["exp_avg"].dtype is dtype
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=rtol, atol=atol)


def test_strides_and_alignment_do_not_matter() -> None:
    base = make_tensors([(14, 11), (14, 11), (101,)], 0)
    parameters = [nn.Parameter(base[0].t()), nn.Parameter(base[1][::2, 1::3]), nn.Parameter(base[2][1:])]
    assert [p.is_contiguous() for p in parameters] == [False, False, True]
    optimizer, oracle = Lamb(parameters, lr=0.05), Oracle(parameters)
    for step in range(1, 4):
        oracle.step(give_gradients(parameters, step), lr=0.05)
        optimizer.step()
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-15)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "permuted": lambda x: x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("when", ["from the start", "after a step", "but for the gradient"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dense_layout_follows_the_oracle_on_the_kernels_of_the_device(
    layout: str, when: str, dtype: torch.dtype
) -> None:
    (start,) = make_tensors([(6, 5, 4, 3)], 0, dtype)
    lay_out = LAYOUTS[layout]
    parameter = nn.Parameter(start if when == "after a step" else lay_out(start))
    optimizer, oracle = Lamb([parameter], lr=0.05, max_grad_norm=1.0, master_weights=True), Oracle([parameter])
    for step in (1, 2, 3):
        (grad,) = make_tensors([(6, 5, 4, 3)], step, dtype)
        oracle.step([grad], lr=0.05, max_grad_norm=1.0)
        if step == 2 and when == "after a step":
            parameter.data = lay_out(parameter.data)
        parameter.grad = grad if when == "but for the gradient" else torch.empty_like(parameter).copy_(grad)
        before = parameter.grad
        optimizer.step()
        assert parameter.grad is before
    assert not parameter.is_contiguous()
    state = optimizer.state[parameter]
    assert state["exp_avg"].stride() == parameter.stride()
    weight = state.get("master", parameter.detach())
    torch.testing.assert_close(weight.double(), oracle.weights[0], rtol=2e-6, atol=2e-7)
    torch.testing.assert_close(state["exp_avg"].double(), oracle.exp_avgs[0], rtol=2e-6, atol=2e-7)
    (call,) = optimizer._present_calls()
    assert call.kernels.backend().name == "fused"
    assert call.operands.numels == (360,)


@given(
    shapes=st.lists(st.lists(st.integers(0, 9), min_size=0, max_size=3), min_size=1, max_size=5),
    variant=st.fixed_dictionaries(
        {
            "bias_correction": st.booleans(),
            "grad_averaging": st.booleans(),
            "max_grad_norm": st.sampled_from([None, 0.0, 0.3, 1e6]),
            "weight_norm_bounds": st.sampled_from([None, (0.0, 1.0), (1e-3, 10.0)]),
            "trust_ratio_bounds": st.sampled_from([None, (0.01, 0.3)]),
            "layer_adaptation": st.booleans(),
            "weight_decay": st.sampled_from([0.0, 0.01, 1.0]),
        }
    ),
)
@settings(max_examples=30, deadline=None)
def test_any_shapes_under_any_switches_follow_the_oracle(shapes: list[list[int]], variant: dict[str, Any]) -> None:
    parameters = make_parameters(shapes)
    optimizer, oracle = Lamb(parameters, lr=0.05, **variant), Oracle(parameters)
    for step in (1, 2):
        oracle.step(give_gradients(parameters, step), lr=0.05, **variant)
        optimizer.step()
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_every_switch_changes_the_result(switch: dict[str, Any]) -> None:
    assert not torch.equal(torch.cat([w.flatten() for w in train()]), torch.cat([w.flatten() for w in train(**switch)]))


@pytest.mark.parametrize("off", [{"max_grad_norm": None}, {"max_grad_norm": 0}, {"max_grad_norm": 1e9}])
def test_off_means_off(off: dict[str, Any]) -> None:
    for plain, switched in zip(train(), train(**off), strict=True):
        assert torch.equal(plain, switched)


def test_skipping_changes_nothing_while_gradients_are_finite() -> None:
    for plain, switched in zip(train(), train(skip_nonfinite=False), strict=True):
        assert torch.equal(plain, switched)


def test_without_adaptation_it_is_adamw() -> None:
    ours, theirs = make_parameters([(13, 7), (5,)]), make_parameters([(13, 7), (5,)])
    with torch.no_grad():
        torch._foreach_mul_([*ours, *theirs], 0.1)  # weights of a network's size, so 2e-15 is a few units in last place
    lamb = Lamb(ours, lr=1e-2, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.05, layer_adaptation=False)
    adamw = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.05)
    for step in range(1, 21):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        lamb.step()
        adamw.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-15)


def test_clipping_acts_only_above_the_norm() -> None:
    parameters = make_parameters([(4,), (3,)])
    optimizer = Lamb(parameters, max_grad_norm=1.0)
    for size, clip in ((0.1, 1.0), (3.0, 1 / (3.0 * 7**0.5))):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, size)
        optimizer.step()
        assert optimizer.last_step is not None
        assert optimizer.last_step.grad_norm is not None
        assert optimizer.last_step.grad_norm.item() == pytest.approx(size * 7**0.5)
        assert optimizer.last_step.clip_coef.item() == pytest.approx(clip)


def test_gradients_are_left_as_they_are() -> None:
    parameters = make_parameters([(4,), (3,)])
    gradients = give_gradients(parameters, 1)
    Lamb(parameters, max_grad_norm=0.1).step()
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, gradients, strict=True) if p.grad is not None)


def test_a_large_finite_norm_is_not_mistaken_for_infinity() -> None:
    parameter = nn.Parameter(torch.ones(4))
    parameter.grad = torch.full((4,), 1e30)
    optimizer = Lamb([parameter], max_grad_norm=1.0)
    optimizer.step()
    assert optimizer.last_step is not None
    assert not optimizer.last_step.skipped
    assert parameter.isfinite().all()
    assert not torch.equal(parameter.detach(), torch.ones(4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("warm", [False, True])
def test_a_gradient_that_is_not_finite_changes_no_bit(bad: float, warm: bool) -> None:
    parameters = make_parameters([(6,), (2, 3)], torch.float32)
    with torch.no_grad():
        parameters[1][0, 0] = -0.0
    optimizer = Lamb(parameters, lr=0.05, max_grad_norm=1.0)
    if warm:
        give_gradients(parameters, 1)
        optimizer.step()
        with torch.no_grad():
            parameters[1][0, 0] = -0.0
            optimizer.state[parameters[1]]["exp_avg"][0, 0] = -0.0
    give_gradients(parameters, 2)[0]
    assert parameters[0].grad is not None
    parameters[0].grad[3] = bad
    before = [bits(p) for p in parameters], [state_bits(optimizer, p) for p in parameters] if warm else []
    optimizer.step()
    after = [bits(p) for p in parameters], [state_bits(optimizer, p) for p in parameters] if warm else []
    assert after == before
    assert optimizer.last_step is not None
    assert optimizer.last_step.skipped
    assert optimizer.last_step.trust_ratio.tolist() == [1.0, 1.0]
    assert optimizer.last_step.update_norm.tolist() == [0.0, 0.0]
    give_gradients(parameters, 3)
    optimizer.step()
    assert [optimizer.state[p]["step"].item() for p in parameters] == [2.0 if warm else 1.0] * 2
    assert all(p.isfinite().all() for p in parameters)


def bits(tensor: Tensor) -> list[int]:
    return tensor.detach().flatten().view(torch.int32).tolist()


def state_bits(optimizer: Lamb, parameter: Tensor) -> list[list[int]]:
    return [bits(optimizer.state[parameter][key].reshape(-1)) for key in ("step", "exp_avg", "exp_avg_sq")]


def test_without_skipping_a_nan_is_passed_on_honestly() -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([1.0, float("nan"), 1.0])
    Lamb([parameter], skip_nonfinite=False).step()
    assert parameter.isnan().all()


def test_a_tensor_without_a_gradient_keeps_its_bits_and_its_step() -> None:
    parameters = make_parameters([(4,), (3,)])
    optimizer, oracle = Lamb(parameters, lr=0.05), Oracle(parameters)
    for step in range(1, 5):
        gradients: list[Tensor | None] = list(give_gradients(parameters, step))
        if step in {2, 3}:
            parameters[1].grad = gradients[1] = None
        oracle.step(gradients, lr=0.05)
        optimizer.step()
        assert optimizer.last_step is not None
        assert optimizer.last_step.names == (("0",) if step in {2, 3} else ("0", "1"))
    assert [optimizer.state[p]["step"].item() for p in parameters] == [4.0, 2.0]
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=0)


def test_a_step_without_any_gradient_does_nothing() -> None:
    parameters = make_parameters([(4,)])
    optimizer = Lamb(parameters)
    optimizer.step()
    assert not optimizer.state
    assert optimizer.last_step is None


def test_a_step_without_any_gradient_between_others_does_nothing() -> None:
    (parameter,) = make_parameters([(4,)])
    optimizer, oracle = Lamb([parameter], lr=0.05), Oracle([parameter])
    for step in range(1, 6):
        gradients: list[Tensor | None] = list(give_gradients([parameter], step))
        if step == 3:
            parameter.grad = gradients[0] = None
        oracle.step(gradients, lr=0.05)
        optimizer.step()
    assert optimizer.state[parameter]["step"].item() == 4.0
    torch.testing.assert_close(parameter.detach(), oracle.weights[0], rtol=1e-12, atol=0)


def test_groups_have_their_own_settings_and_a_later_one_joins_in() -> None:
    parameters = make_parameters([(4, 3), (5,), (6,)])
    own: dict[int, dict[str, Any]] = {1: {"weight_decay": 0.0, "layer_adaptation": False}, 2: {"lr": 0.3}}
    optimizer = Lamb([{"params": parameters[:1]}, {"params": parameters[1:2], **own[1]}], lr=0.05)
    oracle = Oracle(parameters)
    for step in range(1, 5):
        if step == 3:
            optimizer.add_param_group({"params": parameters[2:], **own[2]})
        gradients: list[Tensor | None] = list(give_gradients(parameters, step))
        if step < 3:
            gradients[2] = None
        oracle.step(gradients, own, lr=0.05)
        optimizer.step()
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_schedule_changes_the_rate_between_steps(kind: Any) -> None:
    parameters = make_parameters([(4, 3)])
    optimizer, oracle = Lamb(parameters, lr=kind(0.05)), Oracle(parameters)
    for step, lr in enumerate((0.5, 0.25, 0.0), start=1):
        optimizer.param_groups[0]["lr"] = kind(lr)
        oracle.step(give_gradients(parameters, step), lr=lr)
        optimizer.step()
    torch.testing.assert_close(parameters[0].detach(), oracle.weights[0], rtol=1e-12, atol=0)


def test_a_closure_computes_the_gradients_and_its_loss_is_returned() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = Lamb([parameter])

    def closure() -> float:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    assert optimizer.step(closure) == 3.0
    assert optimizer.step(closure) < 3.0


def test_save_load_go_on_is_bit_identical_to_going_straight_on() -> None:
    straight, resumed = make_parameters([(5, 3), (4,)], torch.float32), make_parameters([(5, 3), (4,)], torch.float32)
    one, other = Lamb(straight, lr=0.05, max_grad_norm=1.0), Lamb(resumed, lr=0.05, max_grad_norm=1.0)
    for step in range(1, 6):
        if step == 3:
            file = io.BytesIO()
            torch.save([[p.detach() for p in resumed], other.state_dict()], file)
            file.seek(0)
            weights, state = torch.load(file)
            resumed = [nn.Parameter(weight) for weight in weights]
            other = Lamb(resumed, lr=0.7, max_grad_norm=1.0)
            other.load_state_dict(state)
        for parameters, optimizer in ((straight, one), (resumed, other)):
            give_gradients(parameters, step)
            optimizer.step()
    for a, b in zip(straight, resumed, strict=True):
        assert bits(a) == bits(b)
        assert state_bits(one, a) == state_bits(other, b)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])  # noqa: S301
def test_a_copy_keeps_every_switch(duplicate: Any) -> None:
    parameters = make_parameters([(5, 3)])
    optimizer = Lamb(parameters, bias_correction=False, max_grad_norm=0.5, skip_nonfinite=False, backend="eager")
    copied = duplicate(optimizer)
    for each in (optimizer, copied):
        give_gradients(each.param_groups[0]["params"], 1)
        each.step()
    assert torch.equal(copied.param_groups[0]["params"][0], parameters[0])


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_the_default_dtype_does_not_matter(backend: str, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    first, second = (nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    for parameter, dtype in ((first, torch.float32), (second, torch.float64)):
        torch.set_default_dtype(dtype)
        optimizer = Lamb([parameter], backend=backend)
        for number in range(3):
            parameter.grad = torch.full_like(parameter, 1.0 + number)
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        assert {value.dtype for value in optimizer.state[parameter].values()} == {torch.float32}
    assert torch.equal(first, second)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_the_default_device_does_not_matter(backend: str, lr: Any) -> None:
    plain, other = make_parameters([(5, 3)]), make_parameters([(5, 3)])
    for parameters, device in ((plain, "cpu"), (other, "meta")):
        give_gradients(parameters, 1)
        with torch.device(device):
            Lamb(parameters, lr=lr, eps=1.25e-6, backend=backend).step()
    assert torch.equal(plain[0], other[0])


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["fake first", "fake second"])
def test_a_step_on_fake_tensors_leaves_nothing_to_real_ones(order: tuple[bool, bool]) -> None:
    for is_fake in order:
        with FakeTensorMode() if is_fake else nullcontext():
            parameter = nn.Parameter(torch.ones(3))
            parameter.grad = torch.ones(3)
            # Settings that no other test has, so that nothing is remembered of them.
            optimizer = Lamb([parameter], lr=0.0123 + order[0], eps=1.5e-6 + order[0], skip_nonfinite=False)
            optimizer.step()
        if not is_fake:
            assert (parameter != 1).all()


class NoReadBack(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what would make the host wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert func not in {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
        return func(*args, **(kwargs or {}))


def test_a_step_reads_nothing_back_from_the_device() -> None:
    parameters = make_parameters([(5, 3), (4,)])
    optimizer = Lamb(parameters, max_grad_norm=1.0, trust_ratio_bounds=(0.01, 10.0), backend="eager")
    give_gradients(parameters, 1)
    with NoReadBack():  # type: ignore[no-untyped-call]
        optimizer.step()
        with pytest.raises(AssertionError):
            float(parameters[0].detach().sum())
