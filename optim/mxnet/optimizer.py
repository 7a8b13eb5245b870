"""What MXNet's optimizers share: settings, update counts, and the rates of each tensor."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor

from optim.validation import check_non_negative

from .validation import check_count, check_mapping, check_number, check_numbers, check_scheduler, check_switches

Index = int | str
"""What a tensor is known by: its number as a rule."""

Moments = tuple[Tensor, Tensor]
"""(mean, var), both float32."""

State = Moments | tuple[Tensor, Moments]
"""(mean, var), or (weight32, (mean, var)) where the weight is of half precision."""

_log = logging.getLogger(__name__)


class Scheduler(Protocol):
    """A learning rate for each number of updates."""

    base_lr: float

    def __call__(self, num_update: int, /) -> float:
        """Return the rate at `num_update`."""


class Multipliers(Protocol):
    """A parameter, as far as its rates go."""

    lr_mult: float
    wd_mult: float


class Optimizer:
    """Settings, one count of updates for each index, and the learning rate and weight decay that follow from them."""

    def __init__(
        self,
        learning_rate: float | None,
        rescale_grad: float,
        param_idx2name: Mapping[Any, str] | None,
        wd: float,
        clip_gradient: float | None,
        lr_scheduler: Scheduler | None,
        begin_num_update: int,
        multi_precision: bool,
        param_dict: Mapping[Any, Multipliers] | None,
    ) -> None:
        check_non_negative("wd", wd)
        check_count("begin_num_update", begin_num_update)
        check_numbers(rescale_grad=rescale_grad, clip_gradient=clip_gradient)
        check_switches(multi_precision=multi_precision)
        check_scheduler(lr_scheduler, has_rate=learning_rate is not None)
        for name, given in (("param_idx2name", param_idx2name), ("param_dict", param_dict)):
            if given is not None:
                check_mapping(name, given)
        if learning_rate is not None:
            check_non_negative("learning_rate", learning_rate)
        self.lr = 0.01 if learning_rate is None else learning_rate
        self.lr_scheduler = lr_scheduler
        if lr_scheduler is not None and learning_rate is not None and lr_scheduler.base_lr != learning_rate:
            _log.warning(
                "learning_rate=%r replaces the scheduler's base_lr=%r; pass learning_rate=None to keep that",
                learning_rate,
                lr_scheduler.base_lr,
            )
            lr_scheduler.base_lr = learning_rate
        self.wd = wd
        self.rescale_grad = rescale_grad
        self.clip_gradient = clip_gradient
        self.multi_precision = multi_precision
        self.idx2name = dict(param_idx2name or {})
        self.param_dict = {} if param_dict is None else param_dict
        self.lr_mult: dict[Index, float] = {}
        self.wd_mult: dict[Index, float] = {}
        self.begin_num_update = begin_num_update
        self.num_update = begin_num_update
        self._all_index_update_counts: dict[int, dict[Index, int]] = {}
        self._set_current_context(0)

    @property
    def learning_rate(self) -> float:
        """The rate now, before any multiplier."""
        return self.lr if self.lr_scheduler is None else self.lr_scheduler(self.num_update)

    def set_learning_rate(self, lr: float) -> None:
        """Change the rate of the steps to come.

        Raises:
            UserWarning: a scheduler sets the rate.
        """
        if self.lr_scheduler is not None:
            raise UserWarning(f"lr is {lr!r} but lr_scheduler sets the rate; set lr_scheduler to None first")
        check_non_negative("learning_rate", lr)
        self.lr = lr

    def set_lr_mult(self, args_lr_mult: Mapping[Any, float]) -> None:
        """Replace the multipliers of the learning rate, by index or by name."""
        self.lr_mult = _multipliers("args_lr_mult", args_lr_mult)

    def set_wd_mult(self, args_wd_mult: Mapping[Any, float]) -> None:
        """Replace the multipliers of the weight decay, by index or by name."""
        self.wd_mult = _multipliers("args_wd_mult", args_wd_mult)

    def _set_current_context(self, device_id: int) -> None:
        """Count on the device of this number: replicas of a tensor have one index and each a count."""
        self._index_update_count = self._all_index_update_counts.setdefault(device_id, {})

    def _update_count(self, indices: Sequence[Index]) -> None:
        for index in indices:
            count = self._index_update_count.get(index, self.begin_num_update) + 1
            self._index_update_count[index] = count
            self.num_update = max(count, self.num_update)

    def _get_lrs(self, indices: Sequence[Index]) -> list[float]:
        rate = self.learning_rate
        return [rate * self._multiplier(index, "lr_mult") for index in indices]

    def _get_wds(self, indices: Sequence[Index]) -> list[float]:
        return [self.wd * self._multiplier(index, "wd_mult") for index in indices]

    def _multiplier(self, index: Index, kind: Literal["lr_mult", "wd_mult"]) -> float:
        """Return the first multiplier there is: the parameter's own, the one by index, the one by name."""
        if index in self.param_dict:
            return self.param_dict[index].lr_mult if kind == "lr_mult" else self.param_dict[index].wd_mult
        given = self.lr_mult if kind == "lr_mult" else self.wd_mult
        if index in given:
            return given[index]
        return given.get(self.idx2name[index], 1.0) if index in self.idx2name else 1.0


def _multipliers(name: str, given: Mapping[Any, float]) -> dict[Index, float]:
    check_mapping(name, given)
    for key, value in given.items():
        check_number(f"{name}[{key!r}]", value)
    return dict(given)
