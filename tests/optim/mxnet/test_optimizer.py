"""Counts, multipliers and rates, which MXNet's optimizers have in common."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from optim.mxnet import LAMB, PolyScheduler, Updater


def test_the_number_of_updates_is_the_greatest_count_of_any_tensor() -> None:
    optimizer = LAMB(begin_num_update=2)
    optimizer._update_count([0])
    optimizer._update_count([0])
    optimizer._update_count([1])
    assert (optimizer.num_update, optimizer._index_update_count) == (4, {0: 4, 1: 3})


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
