"""`optim.mxnet.LAMB` against numbers that the real MXNet made."""

from typing import Any

import pytest
import torch
from torch import Tensor

from optim.mxnet import Updater
from tests.optim.mxnet.golden import CASES, Hook, array, bank, golden_mode, parts, run

TOLERANCES = {"w": (2e-5, 2e-6), "w32": (2e-5, 2e-6), "mean": (1e-5, 1e-6), "var": (3e-5, 1e-12)}


def assert_matches(kind: str, ours: Tensor, golden: Tensor) -> None:
    if ours.dtype == torch.float16:
        golden = golden.half()
        ulp = (torch.nextafter(golden.abs(), torch.tensor(torch.inf).half()) - golden.abs()).float()
        assert bool(((ours.float() - golden.float()).abs() <= ulp).all())
        return
    rtol, atol = TOLERANCES[kind]
    torch.testing.assert_close(ours, golden, rtol=rtol, atol=atol, equal_nan=True)


def as_miscounted(case: str) -> Hook:
    """Return what makes ours do as MXNet's path for single tensors: count double, and forget the master weights."""
    trace = CASES[case]["trace"]["fused_agg1"]
    initial = parts(case, array(f"bank/{CASES[case]['bank']}/w0"))

    def before(number: int, updater: Updater) -> None:
        optimizer = updater.optimizer
        optimizer.num_update = trace["num_update"][number] - 1
        optimizer._index_update_count.update({i: t - 1 for i, t in enumerate(trace["t"][number])})
        for i, state in updater.states.items():
            if not isinstance(state[1], Tensor):
                state[0].copy_(initial[int(i)].half())

    return before


@pytest.mark.parametrize("mode", ["fused", "step"])
@pytest.mark.parametrize("case", CASES)
def test_every_value_and_rate_is_that_of_the_binary(case: str, mode: str) -> None:
    golden = golden_mode(case, mode)
    agg1 = golden == "fused_agg1"
    trace: dict[str, Any] = CASES[case]["trace"][golden]
    steps = 0
    for step in run(case, mode, as_miscounted(case) if agg1 else None):
        counts = step.optimizer._index_update_count
        assert [counts.get(i, step.optimizer.begin_num_update) for i in range(len(bank(case)["tensors"]))] == trace[
            "t"
        ][step.number]
        assert step.optimizer.num_update == trace["num_update"][step.number]
        assert step.optimizer._get_lrs(step.updated) == [trace["lr"][step.number][i] for i in step.updated]
        assert step.optimizer._get_wds(step.updated) == [trace["wd"][step.number][i] for i in step.updated]
        for kind, tensors in step.values.items():
            if kind == "w32" and (agg1 or not tensors):
                continue
            expected = parts(case, array(f"{case}/{golden}/{kind}")[step.number])
            for i, tensor in tensors.items():
                assert_matches(kind, tensor, expected[i])
        steps += 1
    assert steps == CASES[case]["steps"]
