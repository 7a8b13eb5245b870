"""Where `optim.mxnet.LAMB` departs from MXNet on purpose: one test for each difference that its docstring lists."""

import logging
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from optim.mxnet import LAMB, CosineScheduler, FactorScheduler, PolyScheduler, Updater
from tests.optim.mxnet.golden import array, parts, run
from tests.optim.oracle import make_tensors

MODES = pytest.mark.parametrize("fused", [True, False], ids=["fused", "step"])
SHAPES = [(3, 4), (5,), (2, 2, 2)]


def after(steps: int, shapes: list[tuple[int, ...]] = SHAPES, **settings: Any) -> list[Tensor]:
    """Return the weights after some steps on fixed gradients."""
    weights, grads = (make_tensors(shapes, seed, torch.float32) for seed in (1, 2))
    updater = Updater(LAMB(**settings))
    for _ in range(steps):
        updater(list(range(len(weights))), grads, weights)
    return weights


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    torch.testing.assert_close(first, second, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("aggregate_num", [0, 1, 2, 45])
def test_an_update_counts_once_whatever_the_aggregate(aggregate_num: int) -> None:
    scheduler = PolyScheduler(max_update=8, base_lr=0.1)
    updater = Updater(LAMB(learning_rate=None, lr_scheduler=scheduler, aggregate_num=aggregate_num))
    weights, grads = (make_tensors(SHAPES, seed, torch.float32) for seed in (1, 2))
    for step in range(1, 4):
        updater([0, 1, 2], grads, weights)
        assert updater.optimizer.num_update == step
        assert updater.optimizer._index_update_count == dict.fromkeys(range(3), step)


@pytest.mark.parametrize("aggregate_num", [0, 1, 2, 45])
def test_the_aggregate_does_not_change_a_result(aggregate_num: int) -> None:
    assert_same(after(4, aggregate_num=aggregate_num, wd=0.1), after(4, use_fused_step=False, wd=0.1))


@MODES
def test_master_weights_move_when_tensors_are_launched_singly(fused: bool) -> None:
    weight, grad = (make_tensors([(6,)], seed, torch.float16)[0] for seed in (1, 2))
    updater = Updater(LAMB(learning_rate=0.1, aggregate_num=1, use_fused_step=fused, multi_precision=True))
    masters = []
    for _ in range(3):
        updater(0, grad, weight)
        masters.append(updater.states[0][0].clone())
        assert torch.equal(weight, masters[-1].half())
    assert not torch.equal(masters[0], masters[1])
    assert not torch.equal(masters[1], masters[2])


@MODES
@pytest.mark.parametrize("off", [0.0, -1.0])
@pytest.mark.parametrize("name", ["clip_gradient", "lower_bound", "upper_bound"])
def test_a_limit_of_zero_or_less_is_off(name: str, off: float, fused: bool) -> None:
    plain = after(3, use_fused_step=fused)
    limited: dict[str, Any] = {name: off}
    assert all(map(torch.equal, after(3, use_fused_step=fused, **limited), plain))
    in_force: dict[str, Any] = {name: 4.0 if name == "lower_bound" else 0.3}
    assert not all(map(torch.equal, after(3, use_fused_step=fused, **in_force), plain))


@MODES
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_gradient_element_spoils_that_element_alone(bad: float, fused: bool) -> None:
    weight, grad = (make_tensors([(3, 4)], seed, torch.float32)[0] for seed in (1, 2))
    grad[1, 2] = bad
    before = weight.clone()
    Updater(LAMB(learning_rate=0.02, bias_correction=False, use_fused_step=fused))(0, grad, weight)
    assert weight.isnan().nonzero().tolist() == [[1, 2]]
    good = ~weight.isnan()
    mean, var = 0.1 * grad, 0.001 * grad.square()
    torch.testing.assert_close(weight[good], (before - 0.02 * mean / (var.sqrt() + 1e-6))[good])


@MODES
@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_norms_neither_vanish_nor_overflow(size: float, fused: bool) -> None:
    weight, grad = (make_tensors([(3, 4)], seed, torch.float32)[0] for seed in (1, 2))
    weight *= size
    before = weight.double()
    Updater(LAMB(learning_rate=0.5, use_fused_step=fused))(0, grad, weight)
    moved = (weight.double() - before).norm() / before.norm()
    assert moved.item() == pytest.approx(0.5, rel=1e-6)


def test_nonfinite_and_extreme_numbers_end_alike_in_both_paths() -> None:
    for case in ("q_nonfinite", "q_nonfinite_clip", "q_extreme"):
        for fused, single in zip(run(case, "fused"), run(case, "step"), strict=True):
            pairs = [(fused.values["w"][i], single.values["w"][i]) for i in fused.updated]
            for one, other in pairs:
                torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-7, equal_nan=True)


@MODES
def test_all_counts_of_a_call_advance_before_the_schedule_is_read(fused: bool) -> None:
    def schedule(num_update: int) -> float:
        seen.append(num_update)
        return 0.1

    seen: list[int] = []
    scheduler = FactorScheduler(step=1)
    optimizer = LAMB(learning_rate=None, lr_scheduler=scheduler, aggregate_num=1, use_fused_step=fused)
    updater = Updater(optimizer)
    weights, grads = (make_tensors(SHAPES, seed, torch.float32) for seed in (1, 2))
    updater([2], grads[2:], weights[2:])
    updater([2], grads[2:], weights[2:])
    optimizer.lr_scheduler = type("Schedule", (), {"base_lr": 0.1, "__call__": staticmethod(schedule)})()
    updater([0, 1, 2], grads, weights)
    assert seen == [3]
    assert optimizer._index_update_count == {2: 3, 0: 1, 1: 1}


@MODES
def test_tensors_of_a_step_have_one_rate_whatever_the_launches(fused: bool) -> None:
    optimizer = LAMB(
        learning_rate=None,
        lr_scheduler=PolyScheduler(max_update=10, base_lr=1.0, pwr=1),
        aggregate_num=2,
        use_fused_step=fused,
        bias_correction=False,
    )
    updater = Updater(optimizer)
    weights = [torch.full((4,), 2.0) for _ in range(6)]
    updater(5, torch.ones(4), torch.ones(4))  # the last one is ahead
    updater(range(6), [torch.ones(4)] * 6, weights)
    for weight in weights:  # without decay and with equal elements the ratio makes u the weight itself
        torch.testing.assert_close(weight, torch.full((4,), 2.0 * (1 - 0.8)))


@MODES
def test_a_rate_of_zero_changes_no_bit(fused: bool) -> None:
    weight = torch.tensor([1.0, -0.0, 3.0])
    optimizer = LAMB(use_fused_step=fused)
    optimizer.set_lr_mult({0: 0.0})
    Updater(optimizer)(0, torch.tensor([1.0, torch.nan, torch.inf]), weight)
    assert weight.view(torch.int32).tolist() == torch.tensor([1.0, -0.0, 3.0]).view(torch.int32).tolist()


@MODES
@pytest.mark.parametrize("clip_gradient", [None, 0.1])
def test_gradients_keep_their_bits(clip_gradient: float | None, fused: bool) -> None:
    weights, grads = (make_tensors(SHAPES, seed, torch.float32) for seed in (1, 2))
    kept = [grad.clone() for grad in grads]
    optimizer = LAMB(rescale_grad=0.25, clip_gradient=clip_gradient, use_fused_step=fused)
    Updater(optimizer)([0, 1, 2], grads, weights)
    assert all(map(torch.equal, grads, kept))


@MODES
def test_a_tensor_without_dimensions_is_updated(fused: bool) -> None:
    (moved,) = after(1, [()], learning_rate=0.5, use_fused_step=fused)
    (start,) = make_tensors([()], 1, torch.float32)
    assert abs(moved - start).item() == pytest.approx(0.5 * abs(start.item()), rel=1e-6)


@MODES
def test_any_number_of_tensors_of_any_dtype_fits_a_direct_call(fused: bool) -> None:
    dtypes = [torch.float32, torch.float16] * 25
    weights = [make_tensors([(4,)], i, dtype)[0] for i, dtype in enumerate(dtypes)]
    grads = [make_tensors([(4,)], i + 100, dtype)[0] for i, dtype in enumerate(dtypes)]
    alone = [weight.clone() for weight in weights]
    optimizer = LAMB(multi_precision=True, learning_rate=0.1)
    states = [optimizer.create_state_multi_precision(i, weight) for i, weight in enumerate(weights)]
    call = optimizer.fused_step if fused else optimizer.step
    call([], [], [], [])
    call(range(50), weights, grads, states)
    for i, (weight, grad) in enumerate(zip(alone, grads, strict=True)):
        Updater(LAMB(multi_precision=True, learning_rate=0.1))(i, grad, weight)
    for together, single in zip(weights, alone, strict=True):
        torch.testing.assert_close(together, single, rtol=2e-6 if single.dtype is torch.float32 else 1e-3, atol=1e-7)


@MODES
def test_bfloat16_has_master_weights_as_float16_has(fused: bool) -> None:
    weight, grad = (make_tensors([(3, 4)], seed, torch.bfloat16)[0] for seed in (1, 2))
    twin = weight.float()
    settings: dict[str, Any] = {"learning_rate": 0.1, "use_fused_step": fused}
    updater = Updater(LAMB(multi_precision=True, **settings))
    updater(0, grad, weight)
    Updater(LAMB(**settings))(0, grad.float(), twin)
    assert torch.equal(updater.states[0][0], twin)
    assert torch.equal(weight, twin.bfloat16())


@pytest.mark.parametrize("made", [PolyScheduler, CosineScheduler])
def test_a_warm_up_over_all_updates_ends_at_the_peak(made: Any) -> None:
    scheduler = made(max_update=4, base_lr=0.1, warmup_steps=4)
    assert [scheduler(n) for n in range(1, 7)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_a_replaced_rate_is_logged_and_not_printed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        LAMB(lr_scheduler=FactorScheduler(step=2, base_lr=0.1))
        assert "0.001" in caplog.text
        assert "base_lr=0.1" in caplog.text
        assert "learning_rate=None" in caplog.text
        caplog.clear()
        LAMB(learning_rate=None, lr_scheduler=FactorScheduler(step=2, base_lr=0.1))
    assert not caplog.text
    assert not capsys.readouterr().out


def test_a_symbol_is_no_argument() -> None:
    with pytest.raises(TypeError, match="sym"):
        LAMB(sym=None)  # type: ignore[call-arg]


def test_saved_states_are_no_pickle_and_a_pickle_is_not_run() -> None:
    updater = Updater(LAMB())
    with pytest.raises(ValueError, match=r"get_states\(\) did not make"):
        updater.set_states(pickle.dumps({0: SimpleNamespace(run="me")}))
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(updater.get_states())  # noqa: S301 - the bytes are our own


def test_loading_an_optimizer_keeps_the_parameters_that_are_there() -> None:
    saved = Updater(LAMB(learning_rate=0.5, param_dict={0: SimpleNamespace(lr_mult=9.0, wd_mult=9.0)}))
    live = {0: SimpleNamespace(lr_mult=2.0, wd_mult=3.0)}
    updater = Updater(LAMB(param_dict=live))
    updater.set_states(saved.get_states(dump_optimizer=True))
    assert updater.optimizer.param_dict is live
    assert updater.optimizer._get_lrs([0, 1]) == [1.0, 0.5]


def test_the_binary_counts_double_where_ours_does_not() -> None:
    """What `fused_step` makes with single launches is what the binary makes in its other path."""
    golden = array("step_agg1/step/w")
    other = array("agg1_default/fused_agg1/w")
    for number, row in enumerate(golden):
        assert not torch.allclose(row, other[number], rtol=2e-5, atol=2e-6)
    for step in run("agg1_default", "fused"):
        expected = parts("agg1_default", golden[step.number])
        for i, weight in step.values["w"].items():
            torch.testing.assert_close(weight, expected[i], rtol=2e-5, atol=2e-6)
