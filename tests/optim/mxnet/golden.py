"""What the real MXNet 2.0.0b1 made of 55 settings, and a driver that does the same with `optim.mxnet`."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optim import mxnet

FOLDER = Path(__file__).parents[2] / "golden"
RECORD: dict[str, Any] = json.loads((FOLDER / "mxnet_lamb.json").read_text())
CASES: dict[str, Mapping[str, Any]] = RECORD["cases"]
_ARRAYS = np.load(FOLDER / "mxnet_lamb.npz")

# case: the path of MXNet's that both of ours follow, where its two disagree
FOLLOWED = {
    "q_clip_zero": "fused",
    "q_extreme": "step",
    "q_nonfinite": "step",
    "q_nonfinite_clip": "step",
    "q_upper_negative": "fused",
    "q_upper_zero": "fused",
}


@cache
def array(key: str) -> Tensor:
    return torch.from_numpy(np.array(_ARRAYS[RECORD["alias"].get(key, key)], dtype=np.float32))


def golden_mode(case: str, mode: str) -> str:
    """Return whose numbers our `mode` ("fused" or "step") is held against."""
    modes = CASES[case]["modes"]
    return FOLLOWED.get(case, mode if mode in modes else modes[0])


def make_optimizer(case: str, mode: str) -> mxnet.LAMB:
    record = CASES[case]
    settings = dict(record["kwargs"])
    if settings.get("param_idx2name") == "BANK":
        settings["param_idx2name"] = dict(enumerate(tensor["name"] for tensor in bank(case)["tensors"]))
    if record["param_dict"]:
        settings["param_dict"] = {int(i): SimpleNamespace(**mults) for i, mults in record["param_dict"].items()}
    if record["lr_scheduler"]:
        made = getattr(mxnet, record["lr_scheduler"]["class"])
        settings["lr_scheduler"] = made(**record["lr_scheduler"]["kwargs"])
    optimizer = mxnet.LAMB(**settings, use_fused_step=mode == "fused")
    optimizer.set_lr_mult(_by_index(record["lr_mult"]))
    optimizer.set_wd_mult(_by_index(record["wd_mult"]))
    return optimizer


def bank(case: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = RECORD["banks"][CASES[case]["bank"]]
    return found


@dataclass
class Step:
    """What one step left behind: values of each tensor, and the rates and counts it was made with."""

    number: int
    optimizer: mxnet.LAMB
    updated: list[int]
    values: dict[str, dict[int, Tensor]] = field(default_factory=dict)  # "w", "mean", "var", "w32": tensors by index


Hook = Callable[[int, mxnet.Updater], None]


def run(case: str, mode: str, before: Hook | None = None) -> Iterator[Step]:
    """Yield the steps of a case with our `mode`; `before` may meddle with the updater ahead of each."""
    record, name = CASES[case], CASES[case]["bank"]
    dtypes = [getattr(torch, dtype) for dtype in record["weight_dtypes"]]
    weights = [part.to(dtype) for part, dtype in zip(parts(case, array(f"bank/{name}/w0")), dtypes, strict=True)]
    updater = mxnet.Updater(make_optimizer(case, mode))
    for number, row in enumerate(array(f"bank/{name}/grad")):
        updater = _after_event(case, mode, number, updater)
        if before is not None:
            before(number, updater)
        mask = record["update_mask"][number] if record["update_mask"] else [True] * len(weights)
        updated = [i for i, wanted in enumerate(mask) if wanted]
        grads = [part.to(dtype) for part, dtype in zip(parts(case, row), dtypes, strict=True)]
        updater(updated, [grads[i] for i in updated], [weights[i] for i in updated])
        yield Step(number, updater.optimizer, updated, _values(weights, updater))


def parts(case: str, row: Tensor) -> list[Tensor]:
    """Cut a row of a bank into its tensors."""
    return [row[t["offset"] : t["offset"] + t["size"]].reshape(t["shape"]).clone() for t in bank(case)["tensors"]]


def _values(weights: list[Tensor], updater: mxnet.Updater) -> dict[str, dict[int, Tensor]]:
    values: dict[str, dict[int, Tensor]] = {"w": {i: w.clone() for i, w in enumerate(weights)}}
    values |= {"mean": {}, "var": {}, "w32": {}}
    for i, state in updater.states.items():
        moments: Any = state
        if not isinstance(state[1], Tensor):
            values["w32"][int(i)] = state[0].clone()
            moments = state[1]
        values["mean"][int(i)], values["var"][int(i)] = (moment.clone() for moment in moments)
    return values


def _after_event(case: str, mode: str, number: int, updater: mxnet.Updater) -> mxnet.Updater:
    event = CASES[case]["events"].get(str(number), {})
    if "set_learning_rate" in event:
        updater.optimizer.set_learning_rate(event["set_learning_rate"])
    if "save_load" in event:
        fresh = mxnet.Updater(make_optimizer(case, mode))
        fresh.set_states(updater.get_states(dump_optimizer=event["save_load"] != "states"))
        return fresh
    return updater


def _by_index(multipliers: Mapping[str, float] | None) -> dict[int | str, float]:
    return {int(key) if key.isdigit() else key: value for key, value in (multipliers or {}).items()}
