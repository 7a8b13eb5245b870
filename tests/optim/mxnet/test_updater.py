"""The Updater: states made as they are needed, one call for many tensors, and going on after a save."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from optim.kernels.operators import Kernels
from optim.mxnet import LAMB, CosineScheduler, FactorScheduler, MultiFactorScheduler, PolyScheduler, Updater
from tests.optim.oracle import make_tensors

SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (2, 2, 2), (), (7,), (1,), (2, 3), (4,), (6,), (9,)]


class Noting(LAMB):
    """Notes how many tensors go into each launch."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sizes: list[int] = []

    def _launch(self, kernels: Kernels, wd: float, entries: list[Any]) -> None:
        self.sizes.append(len(entries))
        super()._launch(kernels, wd, entries)


def launched(optimizer: Noting) -> list[int]:
    weights, grads = (make_tensors(SHAPES, seed, torch.float32) for seed in (1, 2))
    Updater(optimizer)(list(range(10)), grads, weights)
    return optimizer.sizes


def test_a_fused_step_launches_as_many_tensors_as_it_is_told() -> None:
    assert launched(Noting()) == [4, 4, 2]
    assert launched(Noting(aggregate_num=45)) == [10]
    assert launched(Noting(aggregate_num=0)) == [1] * 10
    assert launched(Noting(use_fused_step=False)) == [1] * 10


def test_tensors_of_another_decay_have_their_own_launch() -> None:
    optimizer = Noting(wd=0.1, aggregate_num=45)
    optimizer.set_wd_mult({0: 0.0, 7: 0.0})
    assert launched(optimizer) == [2, 8]


def test_states_are_made_at_the_first_update_of_a_tensor() -> None:
    updater = Updater(LAMB(multi_precision=True))
    single, half = torch.ones(3), torch.ones(2, 2, dtype=torch.float16)
    updater([4], [torch.ones(3)], [single])
    assert list(updater.states) == [4]
    updater(["bias"], [torch.ones(2, 2).half()], [half])
    master, moments = updater.states["bias"]
    assert isinstance(master, Tensor)
    assert [moment.shape for moment in moments] == [half.shape] * 2
    assert torch.equal(half, master.half())


def test_one_tensor_needs_no_lists() -> None:
    alone, listed, grad = torch.ones(3), torch.ones(3), torch.arange(3.0)
    Updater(LAMB(learning_rate=0.1))(0, grad, alone)
    Updater(LAMB(learning_rate=0.1))([0], [grad], [listed])
    assert torch.equal(alone, listed)


@pytest.mark.parametrize(("more", "less"), [("indices 2", "weights 1"), ("indices 1", "weights 2")])
def test_lists_that_differ_in_length_are_refused(more: str, less: str) -> None:
    ones = [torch.ones(3)] * int(less[-1])
    with pytest.raises(ValueError, match=f"{more}, {less}"):
        Updater(LAMB())(list(range(int(more[-1]))), ones, ones)


SCHEDULERS: list[Any] = [
    lambda: None,
    lambda: PolyScheduler(max_update=8, base_lr=0.1, warmup_steps=2),
    lambda: CosineScheduler(max_update=8, base_lr=0.1, final_lr=0.01),
    lambda: FactorScheduler(step=2, factor=0.5, base_lr=0.1),
    lambda: MultiFactorScheduler(step=[1, 4], factor=0.5, base_lr=0.1),
]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_optimizer_that_is_saved_and_loaded_goes_on_to_the_last_bit(dtype: torch.dtype, scheduler: Any) -> None:
    settings: dict[str, Any] = {"beta1": 0.8, "wd": 0.1, "upper_bound": 3.0, "multi_precision": True}
    settings |= {"learning_rate": None, "rescale_grad": 0.5, "clip_gradient": 0.3, "param_idx2name": {1: "b"}}
    weights, *grads = (make_tensors(SHAPES, seed, dtype) for seed in range(7))
    updater = Updater(LAMB(**settings, lr_scheduler=scheduler()))
    updater.optimizer.set_lr_mult({"b": 2.0, 0: 0.5})
    for each in grads[:3]:
        updater(list(range(10)), each, weights)
    loaded, twins = Updater(LAMB(learning_rate=9.0)), [weight.clone() for weight in weights]
    loaded.set_states(updater.get_states(dump_optimizer=True))
    for each in grads[3:]:
        updater(list(range(10)), each, weights)
        loaded(list(range(10)), each, twins)
        assert loaded.optimizer.learning_rate == updater.optimizer.learning_rate
    assert all(map(torch.equal, weights, twins))
    assert loaded.optimizer.num_update == 6
    assert vars(loaded.optimizer).keys() == vars(updater.optimizer).keys()


def test_states_alone_leave_the_new_optimizer_and_its_counts_as_they_are() -> None:
    weight = torch.ones(3)
    updater, fresh = Updater(LAMB()), Updater(LAMB(learning_rate=0.5))
    updater(0, torch.arange(3.0), weight)
    optimizer = fresh.optimizer
    fresh.set_states(updater.get_states())
    assert fresh.optimizer is optimizer
    assert optimizer.num_update == 0
    pairs = zip(fresh.states[0], updater.states[0], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor))


def test_numbers_of_numpy_are_saved_as_plain_ones() -> None:
    name = "rescale_grad"
    updater, loaded = Updater(LAMB(learning_rate=np.float64(0.25))), Updater(LAMB())
    setattr(updater.optimizer, name, np.float32(0.5))
    loaded.set_states(updater.get_states(dump_optimizer=True))
    assert (loaded.optimizer.lr, loaded.optimizer.rescale_grad) == (0.25, 0.5)


def test_numbers_of_numpy_anywhere_are_loaded_again() -> None:
    index: Any = np.int64(0)
    half: Any = np.float32(0.5)
    steps: Any = [np.int64(2), np.int64(4)]
    updater = Updater(LAMB(learning_rate=np.float64(0.25), lr_scheduler=MultiFactorScheduler(steps, half)))
    updater.optimizer.set_lr_mult({index: half})
    weight, grad = torch.ones(3), torch.arange(3.0)
    updater(index, grad, weight)
    loaded, twin = Updater(LAMB()), weight.clone()
    loaded.set_states(updater.get_states(dump_optimizer=True))
    for _ in range(4):
        updater(index, grad, weight)
        loaded(0, grad, twin)
    assert torch.equal(weight, twin)
    assert loaded.optimizer.learning_rate == updater.optimizer.learning_rate == 0.0625


def test_replicas_on_two_devices_share_an_optimizer_and_count_apart() -> None:
    optimizer = LAMB()
    updater = Updater(optimizer)
    for _ in range(3):
        updater(0, torch.ones(3), torch.ones(3))
        # The second device, by hand: nobody can count on there being one.
        optimizer._set_current_context(1)
        weight = torch.ones(3)
        optimizer.update([0], [weight], [torch.ones(3)], [optimizer.create_state(0, weight)])
    optimizer.update([0], [weight], [torch.ones(3)], [optimizer.create_state(0, weight)])
    assert optimizer._all_index_update_counts == {0: {0: 3}, 1: {0: 4}}
    assert optimizer.num_update == 4
    loaded = Updater(LAMB())
    loaded.set_states(updater.get_states(dump_optimizer=True))
    assert loaded.optimizer._all_index_update_counts == {0: {0: 3}, 1: {0: 4}}
    assert loaded.optimizer._index_update_count == {0: 3}


def test_whatever_can_be_gone_through_is_a_list() -> None:
    weights, grads = (make_tensors(SHAPES[:2], seed, torch.float32) for seed in (1, 2))
    updater = Updater(LAMB())
    updater.optimizer.set_lr_mult({0: 0.0, 1: 0.0})
    before = [weight.clone() for weight in weights]
    updater(range(2), iter(grads), torch.nn.ParameterList(weights))
    assert list(updater.states) == [0, 1]
    assert all(map(torch.equal, weights, before))


def test_a_refused_update_leaves_no_state_behind() -> None:
    updater, half = Updater(LAMB()), torch.ones(3).half()
    with pytest.raises(TypeError, match="set multi_precision=True before its state is created"):
        updater(0, half, half)
    updater.optimizer.multi_precision = True
    updater(0, half.clone(), half)
    with pytest.raises(TypeError, match="the weight of index 0 is NoneType"):
        updater(0, half, None)  # type: ignore[arg-type]
    assert isinstance(updater.states[0][0], Tensor)
    assert updater.optimizer.num_update == 1


def test_a_schedule_of_somebody_elses_is_not_saved_but_named() -> None:
    class Mine(PolyScheduler):
        """A scheduler that no file can bring back without code."""

    updater = Updater(LAMB(learning_rate=None, lr_scheduler=Mine(max_update=3)))
    assert updater.get_states()
    with pytest.raises(TypeError, match=r"lr_scheduler is .*Mine.*: use one of .*PolyScheduler.*, or save states only"):
        updater.get_states(dump_optimizer=True)


@pytest.mark.parametrize("what", [b"", b"nothing", b"PK\x03\x04 torn"])
def test_bytes_that_are_no_states_are_refused(what: bytes) -> None:
    with pytest.raises(ValueError, match=rf"states is {len(what)} bytes that get_states\(\) did not make"):
        Updater(LAMB()).set_states(what)


def test_what_is_not_bytes_and_a_file_of_another_kind_leave_what_there_is() -> None:
    updater = Updater(LAMB())
    updater(0, torch.ones(3), torch.ones(3))
    states, optimizer = updater.states, updater.optimizer
    with pytest.raises(TypeError, match="states is NoneType; it must be the bytes"):
        updater.set_states(None)  # type: ignore[arg-type]
    foreign: list[Any] = [{"states": {}, "optimizer": {"momentum": 0.9}}, {"states": {}}, [1, 2]]
    for held in foreign:
        file = io.BytesIO()
        torch.save(held, file)
        with pytest.raises(ValueError, match="did not make"):
            updater.set_states(file.getvalue())
    assert (updater.states, updater.optimizer) == (states, optimizer)
