"""What Lamb keeps, saves and loads on one rank; tests of checkpoints on many are in test_checkpoint."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors

SHAPES = [(13, 29), (7,), (300, 3)]


def make(dtype: torch.dtype = torch.float64, **switches: Any) -> Lamb:
    return Lamb([nn.Parameter(w) for w in make_tensors(SHAPES, 0, dtype)], lr=0.05, **switches)


def parameters_of(optimizer: Lamb) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def take_steps(optimizer: Lamb, first: int, last: int) -> None:
    for step in range(first, last + 1):
        parameters = parameters_of(optimizer)
        for parameter, grad in zip(parameters, make_tensors(SHAPES, step), strict=True):
            parameter.grad = grad.to(parameter.dtype)
        optimizer.step()


def foreign_state(oracle: Oracle, **group: Any) -> dict[str, Any]:
    """Return the oracle's state as apex's FusedLAMB and timm's Lamb lay it out: the step count is the group's."""
    moments = zip(oracle.exp_avgs, oracle.exp_avg_sqs, strict=True)
    return {
        "state": {i: {"exp_avg": m.clone(), "exp_avg_sq": v.clone()} for i, (m, v) in enumerate(moments)},
        # timm keeps the count in a tensor, apex in a number
        "param_groups": [{"step": torch.tensor(float(oracle.steps[0])), "params": [0, 1, 2], **group}],
    }


APEX = {"bias_correction": True, "betas": (0.9, 0.999), "weight_decay": 0.02, "grad_averaging": True}
TIMM = {"trust_clip": False, "always_adapt": True, "caution": False, "decoupled_decay": False}


@pytest.mark.parametrize("extra", [{}, TIMM], ids=["apex", "timm"])
def test_the_state_of_apex_and_timm_is_gone_on_with(extra: dict[str, Any]) -> None:
    oracle = Oracle(make_tensors(SHAPES, 0))
    settings: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.02, "max_grad_norm": 1.0}
    for step in (1, 2, 3):
        oracle.step(make_tensors(SHAPES, step), **settings)
    optimizer = Lamb([nn.Parameter(w.clone()) for w in oracle.weights], max_grad_norm=1.0)
    saved = foreign_state(oracle, lr=0.05, eps=1e-6, max_grad_norm=1.0, **APEX, **extra)
    before = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    assert str(saved) == str(before)
    assert not TIMM.keys() & optimizer.param_groups[0].keys()
    assert optimizer.param_groups[0]["layer_adaptation"] is True
    take_steps(optimizer, 4, 5)
    assert str(saved) == str(before)
    for step in (4, 5):
        oracle.step(make_tensors(SHAPES, step), **settings)
    for weight, expected in zip(parameters_of(optimizer), oracle.weights, strict=True):
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("switch", "value"), [("bias_correction", False), ("grad_averaging", False), ("max_grad_norm", 1.0)]
)
def test_a_state_that_was_computed_otherwise_is_refused_with_the_remedy(switch: str, value: Any) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1, **{switch: value})
    optimizer = make()
    with pytest.raises(ValueError, match=f"made with {switch}={value}.*build it with {switch}={value}"):
        optimizer.load_state_dict(saved)
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_timms_switches_become_settings_of_the_groups() -> None:
    optimizer = make()
    optimizer.load_state_dict(
        foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1, **TIMM | {"always_adapt": False, "trust_clip": True})
    )
    (group,) = optimizer.param_groups
    assert (group["layer_adaptation"], group["trust_ratio_bounds"], group["lr"]) == ("decayed", (0.0, 1.0), 0.1)


@pytest.mark.parametrize("switch", ["caution", "decoupled_decay", "corrected_weight_decay", "amsgrad", "maximize"])
def test_a_state_of_something_that_lamb_does_not_compute_is_refused(switch: str) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1, **{switch: True})
    optimizer = make()
    with pytest.raises(ValueError, match=f"made with {switch}=True, which Lamb does not compute: take '{switch}' out"):
        optimizer.load_state_dict(saved)
    assert not optimizer.state


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_count_in_a_tensor_of_one_element_is_a_count(backend: str) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1)
    saved["param_groups"][0]["step"] = torch.tensor([3])
    optimizer = make(backend=backend)
    optimizer.load_state_dict(saved)
    take_steps(optimizer, 1, 1)
    assert {state["step"].item() for state in optimizer.state.values()} == {4.0}


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
def test_a_state_laid_out_otherwise_is_loaded_element_by_element(moments: Any) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    grad = weight.flip(0).contiguous()
    stepped: list[Tensor] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        first = nn.Parameter(weight.clone().to(memory_format=layout))
        first.grad = grad.clone()
        saved = Lamb([first])
        saved.step()
        then = nn.Parameter(weight.clone())
        loading = Lamb([then], moments=moments)
        loading.load_state_dict(saved.state_dict())
        then.grad = grad.clone()
        loading.step()
        stepped.append(then.detach())
    torch.testing.assert_close(stepped[0], stepped[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("missing", ["exp_avg", "exp_avg_sq", "step"])
def test_a_state_without_an_entry_is_refused_by_name(missing: str) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.05)
    del (saved["param_groups"][0] if missing == "step" else saved["state"][1])[missing]
    with pytest.raises(ValueError, match=rf"the state of parameter '[01]' has no '{missing}'"):
        make().load_state_dict(saved)


def test_a_misshapen_state_is_refused_with_both_shapes() -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.05)
    saved["state"][1]["exp_avg"] = torch.zeros(8)
    optimizer = make()
    with pytest.raises(ValueError, match=r"exp_avg of parameter '1' has shape \(8,\) in the state.*parameter \(7,\)"):
        optimizer.load_state_dict(saved)
    assert not optimizer.state


NAMES = ("embedding", "bias", "head")


def make_named(names: Sequence[str], order: Sequence[int] = (0, 1, 2)) -> Lamb:
    """Return an optimizer of three tensors of one shape, so that no shape tells when one is taken for another."""
    tensors = make_tensors([(5,)] * 3, 0)
    return Lamb([(names[i], nn.Parameter(tensors[i])) for i in order], lr=0.05)


def moments_by_name(optimizer: Lamb) -> dict[str, Tensor]:
    (group,) = optimizer.param_groups
    return {n: optimizer.state[p]["exp_avg"] for n, p in zip(group["param_names"], group["params"], strict=True)}


def warm_named(names: Sequence[str] = NAMES) -> Lamb:
    optimizer = make_named(names)
    for size, parameter in enumerate(parameters_of(optimizer), start=1):
        parameter.grad = torch.full_like(parameter, size)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_state_is_loaded_by_name_whatever_the_order_and_the_wrappers(prefix: str) -> None:
    saved = warm_named([f"{prefix}{name}" for name in NAMES])
    loading = make_named(NAMES, order=(2, 0, 1))
    loading.load_state_dict(saved.state_dict())
    loaded = moments_by_name(loading)
    assert list(loaded) == ["head", "embedding", "bias"]
    for name, moment in moments_by_name(saved).items():
        assert torch.equal(loaded[name.removeprefix(prefix)], moment)


def test_a_state_without_names_is_loaded_by_position() -> None:
    saved = warm_named()
    state = saved.state_dict()
    del state["param_groups"][0]["param_names"]
    loading = make_named(NAMES, order=(2, 0, 1))
    loading.load_state_dict(state)
    assert list(moments_by_name(loading)) == ["head", "embedding", "bias"]
    for one, other in zip(moments_by_name(saved).values(), moments_by_name(loading).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (("embedding", "bias", "neck"), "group 0 has parameter 'head' only here, only in the state, or twice: build"),
        (("embedding", "bias", "bias"), "group 0 has parameter 'head' only here"),
        (("embedding", "bias"), "group 0 has 2 parameters in the state but 3 here: build the groups as when"),
    ],
)
def test_a_state_of_other_parameters_is_refused_by_name(theirs: Sequence[str], message: str) -> None:
    saved = Lamb([(name, nn.Parameter(torch.ones(5))) for name in theirs]).state_dict()
    loading = warm_named()
    before = {name: moment.clone() for name, moment in moments_by_name(loading).items()}
    with pytest.raises(ValueError, match=message):
        loading.load_state_dict(saved)
    assert all(torch.equal(moment, before[name]) for name, moment in moments_by_name(loading).items())


@pytest.mark.parametrize("names", [("weight", "weight", "bias"), ("weight", "module.weight", "bias")])
def test_names_that_are_there_twice_go_by_position(names: Sequence[str]) -> None:
    saved, loading = warm_named(names), make_named(names)
    loading.load_state_dict(saved.state_dict())
    for one, other in zip(parameters_of(saved), parameters_of(loading), strict=True):
        assert torch.equal(saved.state[one]["exp_avg"], loading.state[other]["exp_avg"])


def test_a_state_of_other_groups_is_refused_with_their_number() -> None:
    other = Lamb([{"params": [nn.Parameter(torch.ones(5))]}, {"params": [nn.Parameter(torch.ones(5))]}])
    with pytest.raises(ValueError, match="the state has 2 parameter groups but this Lamb 1: build them as when"):
        make_named(NAMES).load_state_dict(other.state_dict())


def test_hooks_see_and_may_change_what_is_saved_and_loaded() -> None:
    def forget(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
        seen.append(saved["state"][0]["exp_avg"].dtype)
        return saved | {"state": {0: saved["state"][0]}}

    def look(optimizer: Any) -> None:
        seen.append(len(optimizer.state))

    seen: list[Any] = []
    saved = make(torch.float32, moments="8bit")
    take_steps(saved, 1, 1)
    saved.register_state_dict_post_hook(forget)
    loading = make(torch.float32, moments="8bit")
    loading.register_load_state_dict_pre_hook(forget)
    loading.register_load_state_dict_post_hook(look)
    loading.load_state_dict(saved.state_dict())
    assert seen == [torch.float32, torch.float32, 1]
    assert list(loading.state) == parameters_of(loading)[:1]
    assert loading.state[parameters_of(loading)[0]]["exp_avg"].dtype is torch.uint8
    loading.load_state_dict(loading.state_dict())
    assert len(seen) == 5


def test_a_description_is_had_after_loading_and_copying_too() -> None:
    optimizer = warm_named()
    text = optimizer.describe()
    assert copy.deepcopy(optimizer).describe() == text
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.describe() == text


def test_distributed_checkpoints_find_parameters_by_name_too() -> None:
    def run(order: int) -> tuple[nn.Module, Lamb]:
        model = nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in ("first", "second")})
        return model, Lamb(list(model.named_parameters())[::order], lr=0.05)

    model, saved = run(1)
    for size, parameter in enumerate(model.parameters(), start=1):
        parameter.grad = torch.full_like(parameter, size)
    saved.step()
    other, loading = run(-1)
    weights, state = get_state_dict(model, saved)
    set_state_dict(other, loading, model_state_dict=weights, optim_state_dict=state)
    loaded = moments_by_name(loading)
    assert list(loaded) == ["second.weight", "first.weight"]
    for name, moment in moments_by_name(saved).items():
        assert torch.equal(loaded[name], moment)


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stop_save_load_and_go_on_is_bit_identical_in_every_format(moments: str, dtype: torch.dtype) -> None:
    switches: dict[str, Any] = {"moments": moments, "master_weights": True}
    straight = make(dtype, **switches)
    take_steps(straight, 1, 3)
    other = make(dtype, **switches)
    for parameter, weight in zip(parameters_of(other), parameters_of(straight), strict=True):
        parameter.data.copy_(weight)
    other.load_state_dict(copy.deepcopy(straight.state_dict()))
    take_steps(straight, 4, 6)
    take_steps(other, 4, 6)
    for mine, theirs in zip(parameters_of(straight), parameters_of(other), strict=True):
        assert torch.equal(mine, theirs)
        assert straight.state[mine].keys() == other.state[theirs].keys()
        for key, entry in straight.state[mine].items():
            assert entry.dtype is other.state[theirs][key].dtype
            assert torch.equal(entry, other.state[theirs][key]), key


def test_a_state_is_loaded_into_another_format() -> None:
    full = make(torch.float32)
    take_steps(full, 1, 3)
    narrow = make(torch.float32, moments="8bit")
    narrow.load_state_dict(full.state_dict())
    for i, own in narrow.state_dict()["state"].items():
        expected = full.state[parameters_of(full)[i]]["exp_avg"]
        assert (own["exp_avg"] - expected).abs().max() <= 0.02 * expected.abs().max()
        assert own["step"] == 3


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_with_master_weights_follows_the_oracle(dtype: torch.dtype, backend: str) -> None:
    optimizer = make(dtype, master_weights=True, backend=backend, max_grad_norm=1.0)
    oracle = Oracle(make_tensors(SHAPES, 0, dtype))
    for step in range(1, 6):
        oracle.step([g.to(dtype) for g in make_tensors(SHAPES, step)], lr=0.05, max_grad_norm=1.0)
        take_steps(optimizer, step, step)
    for parameter, expected in zip(parameters_of(optimizer), oracle.weights, strict=True):
        master = optimizer.state[parameter]["master"]
        assert master.dtype is optimizer.state[parameter]["exp_avg"].dtype is torch.float32
        torch.testing.assert_close(master.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter.detach(), master.to(dtype))


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_model_that_is_widened_moves_with_its_master_weights(backend: str) -> None:
    model = nn.Linear(4, 4).bfloat16()
    optimizer = Lamb(model.named_parameters(), lr=0.1, master_weights=True, backend=backend)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    model.float()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in model.parameters():
        assert torch.equal(parameter, optimizer.state[parameter]["master"])
        assert optimizer.state[parameter]["step"] == 2


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_small_steps_add_up_only_with_master_weights(backend: str) -> None:
    def moved(*, master_weights: bool) -> bool:
        parameter = nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
        optimizer = Lamb([parameter], lr=1e-4, master_weights=master_weights, backend=backend)
        for _ in range(60):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        return bool((parameter != 1).all())

    assert moved(master_weights=True)
    assert not moved(master_weights=False)
