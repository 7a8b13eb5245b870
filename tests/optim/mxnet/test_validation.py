"""What is refused, and that it leaves everything as it was."""

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from optim.mxnet import LAMB, Updater
from tests.ranks import run_on_ranks


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
