"""What Lamb refuses, by name and with a remedy, before anything is written."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from optim import Lamb
from tests.optim.gradients import WAYS, set_gradient
from tests.optim.oracle import Oracle, make_tensors
from tests.ranks import run_on_ranks

SHAPES = [(4, 3), (5,)]
SHARDED = (Shard(0), Replicate())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr is -1.0; it must be finite and 0 or more"),
        ({"lr": float("nan")}, ValueError, "lr is nan"),
        ({"lr": "0.1"}, TypeError, "lr is '0.1'; it must be a number"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas is \(0.9, 1.0\); each must be in"),
        ({"betas": 0.9}, TypeError, "betas is 0.9; it must be a pair"),
        ({"eps": -1e-8}, ValueError, "eps is -1e-08"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay is -0.1"),
        ({"max_grad_norm": -1.0}, ValueError, "max_grad_norm is -1.0"),
        ({"weight_norm_bounds": (2.0, 1.0)}, ValueError, r"weight_norm_bounds is \(2.0, 1.0\); it must be \(low, high"),
        ({"trust_ratio_bounds": (-1.0, 1.0)}, ValueError, "trust_ratio_bounds is"),
        ({"trust_ratio_bounds": 10.0}, TypeError, "trust_ratio_bounds is 10.0; it must be None or a pair"),
        ({"backend": "cuda"}, ValueError, "backend is 'cuda'; it must be one of 'auto', 'eager'"),
        ({"bias_correction": "no"}, TypeError, "bias_correction is 'no'; it must be True or False"),
        ({"skip_nonfinite": 1}, TypeError, "skip_nonfinite is 1; it must be True or False"),
        ({"weight_norm_bounds": ("0", 1.0)}, TypeError, "weight_norm_bounds is .*both must be numbers, math.inf where"),
        (
            {"trust_ratio_bounds": (0.1, None)},
            TypeError,
            "trust_ratio_bounds is .*both must be numbers, math.inf where",
        ),
        ({"trust_ratio_bounds": (float("nan"), 1.0)}, ValueError, r"trust_ratio_bounds is \(nan, 1.0\); it must be"),
        ({"weight_norm_bounds": (float("inf"), float("inf"))}, ValueError, "it must be .* and a finite low"),
    ],
)
def test_a_bad_setting_is_refused_by_name_value_and_remedy(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Lamb([nn.Parameter(torch.ones(3))], **settings)


def test_a_switch_of_the_whole_optimizer_is_refused_in_a_group() -> None:
    message = "max_grad_norm=1.0 in a parameter group, but the optimizer has None: there is one value for all groups"
    with pytest.raises(ValueError, match=message):
        Lamb([{"params": [nn.Parameter(torch.ones(3))], "max_grad_norm": 1.0}])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(3, dtype=torch.complex64), "parameter 'w' is torch.complex64.*view_as_real"),
        (torch.ones(3).to(torch.float8_e4m3fn), "parameter 'w' is torch.float8_e4m3fn; .* 16 bits or more"),
        (torch.eye(3).to_sparse(), "parameter 'w' is torch.sparse_coo; .* use to_dense"),
    ],
)
def test_a_parameter_that_is_not_dense_and_real_is_refused(tensor: Tensor, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Lamb([("w", tensor.requires_grad_())])


FROZEN = {
    "codes": torch.ones(2, dtype=torch.uint8),
    "elsewhere": torch.ones(2, device="meta"),
    "complex": torch.ones(2, dtype=torch.complex64),
    "sparse": torch.eye(3).to_sparse(),
    "shared": torch.ones(1).expand(5),
}


@pytest.mark.parametrize("which", FROZEN)
@pytest.mark.parametrize("moments", ["full", "8bit"])
def test_a_frozen_parameter_may_be_of_any_kind_and_on_any_device(which: str, moments: Any) -> None:
    frozen = nn.Parameter(FROZEN[which], requires_grad=False)
    trained = nn.Parameter(torch.ones(3))
    optimizer = Lamb([("frozen", frozen), ("trained", trained)], moments=moments)
    assert "2 tensors" in optimizer.describe()
    trained.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.last_step is not None
    assert optimizer.last_step.names == ("trained",)
    optimizer.load_state_dict(optimizer.state_dict())
    assert list(optimizer.state) == [trained]


def test_a_parameter_that_is_thawed_is_looked_at_when_it_has_a_gradient() -> None:
    first, thawed = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, dtype=torch.complex64), requires_grad=False)
    optimizer = Lamb([("first", first), ("thawed", thawed)])
    thawed.requires_grad_(True)
    first.grad, thawed.grad = torch.ones(3), torch.ones_like(thawed)
    assert "parameter 'thawed' is torch.complex64" in refusal(optimizer, TypeError)
    assert torch.equal(first.detach(), torch.ones(3))


def test_a_lazy_parameter_is_stepped_once_it_has_a_shape() -> None:
    torch.manual_seed(0)
    lazy = nn.LazyLinear(3)
    optimizer = Lamb(lazy.named_parameters(), lr=0.05)
    assert "2 tensors, 0 elements" in optimizer.describe()
    optimizer.step()
    assert optimizer.last_step is None
    lazy(torch.ones(2, 4)).square().sum().backward()
    oracle = Oracle([lazy.weight, lazy.bias])
    grads = [None if p.grad is None else p.grad.clone() for p in (lazy.weight, lazy.bias)]
    oracle.step(grads, lr=0.05)
    optimizer.step()
    for parameter, expected in zip((lazy.weight, lazy.bias), oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-6, atol=1e-7)
    assert "15 elements" in optimizer.describe()


def test_a_state_of_a_parameter_that_is_still_lazy_is_refused_with_the_remedy() -> None:
    plain = nn.Linear(4, 3)
    saved = Lamb(plain.named_parameters())
    plain(torch.ones(2, 4)).sum().backward()
    saved.step()
    with pytest.raises(ValueError, match=r"parameter 'weight' is lazy .* run the model once before load_state_dict"):
        Lamb(nn.LazyLinear(3).named_parameters()).load_state_dict(saved.state_dict())


def test_a_bad_group_added_later_is_refused_and_leaves_the_optimizer_whole() -> None:
    optimizer = Lamb([nn.Parameter(torch.ones(3))])
    with pytest.raises(ValueError, match=r"lr is -1\.0"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(4))], "lr": -1.0})
    assert len(optimizer.param_groups) == 1


def test_a_parameter_whose_elements_share_memory_is_refused() -> None:
    with pytest.raises(TypeError, match=r"parameter 'w' has elements that share memory, .* use clone\(\)"):
        Lamb([("w", nn.Parameter(torch.ones(1).expand(5)))])


def test_half_precision_with_narrow_moments_is_told_to_keep_master_weights() -> None:
    with pytest.raises(TypeError, match=r"parameter 'w' is torch.bfloat16; moments='8bit' .* use master_weights=True"):
        Lamb([("w", nn.Parameter(torch.ones(3, dtype=torch.bfloat16)))], moments="8bit")


@pytest.mark.parametrize("devices", [("cpu", "meta"), ("meta", "cpu")], ids=str)
def test_parameters_on_two_devices_are_refused(devices: tuple[str, str]) -> None:
    named = [(f"on.{device}", nn.Parameter(torch.ones(2, device=device))) for device in devices]
    with pytest.raises(ValueError, match=rf"'on\.{devices[1]}' is on {devices[1]} but 'on\.{devices[0]}' .* move the"):
        Lamb(named)
    later = Lamb(named[:1])
    with pytest.raises(ValueError, match="Lamb needs all on one device"):
        later.add_param_group({"params": named[1:]})
    assert len(later.param_groups) == 1


def warm(parameters: list[nn.Parameter]) -> Lamb:
    """Return an optimizer that has taken a step and has gradients for the next."""
    optimizer = Lamb([("first", parameters[0]), ("second", parameters[1])])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def refusal(optimizer: Lamb, error: type[Exception]) -> str:
    """Return what `step` raises, and check that it has changed no bit."""
    before, last = written(optimizer), optimizer.last_step
    with pytest.raises(error) as raised:
        optimizer.step()
    after = written(optimizer)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert optimizer.last_step is last
    return str(raised.value)


def written(optimizer: Lamb) -> dict[str, Tensor]:
    """Return copies of all that a step writes, as this rank holds it."""
    entries = {}
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for key, tensor in {"weight": parameter, **optimizer.state[parameter]}.items():
            part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            entries[f"{number}/{key}"] = part.detach().clone()
    return entries


@pytest.mark.parametrize(
    ("gradient", "kind"),
    [
        (torch.ones(5, dtype=torch.int64), "torch.int64"),
        (torch.ones(5, dtype=torch.bool), "torch.bool"),
        (torch.ones(5, dtype=torch.complex64), "torch.complex64"),
        (torch.ones(5).to(torch.float8_e5m2), "torch.float8_e5m2"),
        (torch.ones(5).to_sparse(), "torch.sparse_coo"),
    ],
)
def test_a_gradient_that_is_not_dense_and_real_is_refused(gradient: Tensor, kind: str) -> None:
    parameters = [nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0, torch.float32)]
    optimizer = warm(parameters)
    set_gradient(parameters[1], gradient)
    message = refusal(optimizer, TypeError)
    assert message.startswith(f"the gradient of 'second' is {kind}")
    assert "to(torch.float32)" in message or "sparse=False" in message


def test_a_sparse_gradient_is_refused_before_anything_is_written() -> None:
    parameters = [nn.Parameter(tensor) for tensor in make_tensors([(4,), (3, 3)], 0)]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = Lamb(parameters)
    parameters[0].grad = torch.ones_like(parameters[0])
    parameters[1].grad = torch.eye(3, dtype=torch.float64).to_sparse()
    with pytest.raises(TypeError, match=r"the gradient of '1' is torch.sparse_coo; .* sparse=False"):
        optimizer.step()
    assert not optimizer.state
    assert all(torch.equal(p.detach(), was) for p, was in zip(parameters, before, strict=True))


@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_model_that_is_laid_out_anew_under_narrow_moments_is_refused(moments: Any, steps_before: int) -> None:
    weight = nn.Parameter(torch.ones(4, 2, 3, 3))
    optimizer = Lamb([("conv", weight)], moments=moments)
    for _ in range(steps_before):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    weight.data = weight.data.to(memory_format=torch.channels_last)
    weight.grad = torch.ones_like(weight)
    message = refusal(optimizer, TypeError)
    assert message == f"parameter 'conv' is not contiguous; moments={moments!r} needs that: use contiguous()"


def test_a_gradient_that_was_resized_behind_its_parameter_is_refused() -> None:
    parameters = [nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0, torch.float32)]
    optimizer = warm(parameters)
    assert parameters[1].grad is not None
    parameters[1].grad.data = torch.ones(50)
    assert "the gradient of 'second' has shape (50,)" in refusal(optimizer, ValueError)


@pytest.mark.parametrize("leave", WAYS)
def test_a_gradient_of_another_precision_is_taken_as_it_is(leave: Callable[[Tensor, Tensor], None]) -> None:
    one, other = (nn.Parameter(tensor) for tensor in make_tensors([(9,), (9,)], 0, torch.float32))
    other.data.copy_(one)
    (rounded,) = make_tensors([(9,)], 1, torch.bfloat16)
    one.grad = rounded.float()
    leave(other, rounded)
    assert other.grad is not None
    assert other.grad.dtype is torch.bfloat16
    Lamb([one]).step()
    Lamb([other]).step()
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


GRADIENTS: dict[str, tuple[Callable[[DeviceMesh], Tensor], str]] = {
    "plain": (lambda _: torch.ones(4, 3), "is on the mesh None but the parameter on"),
    "on another mesh": (
        lambda _: distribute_tensor(torch.ones(4, 3), init_device_mesh("cpu", (1, 2)), SHARDED),
        "distribute the gradient over the parameter's mesh",
    ),
    "longer on this rank": (
        lambda mesh: DTensor.from_local(torch.ones(90, 3), mesh, SHARDED, shape=torch.Size((4, 3)), stride=(3, 1)),
        "has shape (90, 3) on this rank but the parameter (2, 3); shard it like the parameter",
    ),
    "longer where it is replicated": (
        lambda mesh: DTensor.from_local(
            torch.ones(90, 3), mesh, (Replicate(), Replicate()), shape=torch.Size((4, 3)), stride=(3, 1)
        ),
        "has shape (45, 3) on this rank but the parameter (2, 3); shard it like the parameter",
    ),
}


def refuse_gradient(which: str) -> str:
    mesh = init_device_mesh("cpu", (2, 1))
    first = nn.Parameter(torch.ones(5))
    second = nn.Parameter(distribute_tensor(torch.ones(4, 3), mesh, SHARDED))
    optimizer = warm([first, second])
    second.grad = GRADIENTS[which][0](mesh)
    return refusal(optimizer, ValueError)


@pytest.mark.parametrize("which", GRADIENTS)
def test_a_gradient_that_does_not_lie_on_its_parameter_is_refused(which: str) -> None:
    for message in run_on_ranks(2, refuse_gradient, which):
        assert message.startswith("the gradient of 'second'")
        assert GRADIENTS[which][1] in message


def refuse_sharded_gradient_of_plain() -> str:
    parameters = [nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(4, 3))]
    optimizer = warm(parameters)
    parameters[1].grad = distribute_tensor(torch.ones(4, 3), init_device_mesh("cpu", (2, 1)), SHARDED)
    return refusal(optimizer, ValueError)


def test_a_sharded_gradient_of_a_plain_parameter_is_refused() -> None:
    for message in run_on_ranks(2, refuse_sharded_gradient_of_plain):
        assert "the gradient of 'second' is on the mesh DeviceMesh" in message
        assert "but the parameter on None" in message


def refuse_parameters() -> dict[str, str]:
    """Return what Lamb says to a partial parameter and to two whose meshes have no process group."""
    lost = dist.new_group([0, 1])
    # Named, so that neither equals the mesh of another test on these ranks: DTensor caches results by equal meshes.
    without = DeviceMesh("cpu", [0, 1], mesh_dim_names=("without",), _init_backend=False)
    mesh_of_lost = DeviceMesh.from_group(lost, "cpu", mesh_dim_names=("lost",))
    tensors = {
        "partial": DTensor.from_local(torch.ones(3), init_device_mesh("cpu", (2,)), (Partial(),)),
        "without": DTensor.from_local(torch.ones(2, 3), without, (Shard(0),), run_check=False),
        "lost": distribute_tensor(torch.ones(4, 3), mesh_of_lost, (Shard(0),)),
    }
    dist.destroy_process_group(lost)
    said = {}
    for name, tensor in tensors.items():
        with pytest.raises(ValueError, match=f"parameter 'head.{name}'") as raised:
            Lamb([("good", nn.Parameter(torch.ones(3))), (f"head.{name}", nn.Parameter(tensor))])
        said[name] = str(raised.value)
    return said


def test_a_parameter_whose_parts_cannot_be_summed_is_refused() -> None:
    for said in run_on_ranks(2, refuse_parameters):
        assert said["partial"].startswith("parameter 'head.partial' is placed Partial")
        assert "redistribute" in said["partial"]
        for name in ("without", "lost"):
            assert said[name].startswith(f"parameter 'head.{name}' lies on dimension")
            assert "has no process group: build the mesh with init_device_mesh" in said[name]


@pytest.mark.parametrize("bad", ["misshapen", "missing"])
def test_a_state_that_does_not_fit_leaves_the_old_one(bad: str) -> None:
    optimizer = warm([nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0, torch.float32)])
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 0.7
    if bad == "misshapen":
        saved["state"][1]["exp_avg"] = torch.zeros(6)
    else:
        del saved["state"][1]["exp_avg"]
    saved["state"][0]["exp_avg"] = torch.full((4, 3), 9.0)
    before = written(optimizer)
    with pytest.raises(ValueError, match="parameter 'second'"):
        optimizer.load_state_dict(saved)
    after = written(optimizer)
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert optimizer.param_groups[0]["lr"] == 1e-3


def grow(parameter: nn.Parameter, _: dict[str, Any]) -> None:
    parameter.grad = None
    parameter.data = torch.ones(5000)
    parameter.grad = torch.ones(5000)


def shorten(_: nn.Parameter, state: dict[str, Any]) -> None:
    state["exp_avg_sq"] = torch.zeros(3)


def count_in_a_number(_: nn.Parameter, state: dict[str, Any]) -> None:
    state["step"] = 7


def forget(_: nn.Parameter, state: dict[str, Any]) -> None:
    del state["exp_avg"]


def forget_scales(_: nn.Parameter, state: dict[str, Any]) -> None:
    del state["exp_avg_scale"]


def move(_: nn.Parameter, state: dict[str, Any]) -> None:
    state["exp_avg"] = state["exp_avg"].to("meta")


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize(
    ("change", "moments", "named"),
    [
        (grow, "full", r"exp_avg of parameter 'b' is \[7\] on cpu .* must be \[5000\] on cpu"),
        (shorten, "full", r"exp_avg_sq of parameter 'b' is \[3\] on cpu .* must be \[7\] on cpu"),
        (count_in_a_number, "full", "step of parameter 'b' is no tensor"),
        (forget, "full", "exp_avg of parameter 'b' is no tensor"),
        (forget_scales, "8bit", "exp_avg_scale of parameter 'b' is no tensor"),
        (move, "full", r"exp_avg of parameter 'b' is \[7\] on meta .* must be \[7\] on cpu"),
    ],
)
def test_a_state_that_no_longer_fits_its_parameter_is_refused_at_the_step(
    change: Callable[[nn.Parameter, dict[str, Any]], None], moments: Any, named: str, backend: str
) -> None:
    parameters = [nn.Parameter(torch.ones(7)) for _ in range(2)]
    optimizer = Lamb(zip("ab", parameters, strict=True), moments=moments, backend=backend)
    for parameter in parameters:
        parameter.grad = torch.ones(7)
    optimizer.step()
    change(parameters[1], optimizer.state[parameters[1]])
    before = [parameter.detach().clone() for parameter in parameters]
    with pytest.raises(ValueError, match=named):
        optimizer.step()
    assert all(torch.equal(parameter, was) for parameter, was in zip(parameters, before, strict=True))
    del optimizer.state[parameters[1]]
    optimizer.step()
    assert not torch.equal(parameters[1], before[1])


@pytest.mark.parametrize("lr", [-1.0, float("nan")])
def test_a_bad_rate_that_a_schedule_sets_is_refused_at_the_step(lr: float) -> None:
    optimizer = warm([nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0)])
    optimizer.param_groups[0]["lr"] = lr
    assert "lr is" in refusal(optimizer, ValueError)


def test_a_bad_rate_in_a_state_is_refused_and_nothing_of_it_is_loaded() -> None:
    optimizer = warm([nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0)])
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = -1.0
    before = written(optimizer)
    with pytest.raises(ValueError, match=r"lr is -1.0"):
        optimizer.load_state_dict(saved)
    assert all(torch.equal(written(optimizer)[key], tensor) for key, tensor in before.items())
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_a_setting_of_a_group_that_the_optimizer_has_otherwise_is_refused_at_the_step() -> None:
    optimizer = warm([nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0)])
    optimizer.param_groups[0]["skip_nonfinite"] = True
    optimizer.step()
    optimizer.param_groups[0]["skip_nonfinite"] = False
    assert "skip_nonfinite=False in a parameter group, but the optimizer has True" in refusal(optimizer, ValueError)
