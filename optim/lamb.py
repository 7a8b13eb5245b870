"""LAMB for one rank and for many."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from .kernels.eager import trust_ratio
from .ops import BACKENDS, Operators
from .sharding import Groups, distinct, local_part, shard_groups, sum_over_shards, total_over_shards
from .validation import SWITCHES, check_gradient, check_group, check_non_negative, check_parameter

Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class LastStep:
    """What a step did. T = tensors that had a gradient; all tensors lie on the device, and reading one waits for it.

    A skipped step moved nothing: its update norms are 0 and its ratios 1.
    """

    names: tuple[str, ...]
    weight_norm: Tensor  # float64 [T], before the step
    update_norm: Tensor  # float64 [T]
    trust_ratio: Tensor  # float64 [T]
    grad_norm: Tensor | None  # float64 scalar before clipping; None where neither clipping nor skipping asked for it
    clip_coef: Tensor  # float64 scalar, what the gradients were multiplied with
    skipped: Tensor  # bool scalar


@dataclass(frozen=True)
class _Batch:
    """Tensors that share settings, dtype and shard groups: one call of each operator. Lists hold local parts."""

    settings: dict[str, Any]
    groups: Groups
    names: list[str]
    grads: list[Tensor]
    weights: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]

    @property
    def tensors(self) -> tuple[list[Tensor], ...]:
        """All that the operators work on, in their order."""
        return self.grads, self.weights, self.exp_avgs, self.exp_avg_sqs, self.steps


class Lamb(Optimizer):
    """LAMB as its paper prints it, with norms of whole tensors however these are sharded.

    A step has five phases, and at most two collectives for one device mesh, whatever the number of tensors:

    1. reduce: the squares of all gradients, summed over the shards (first collective).
    2. clip: from that norm, the factor on every gradient and whether all ranks skip the step.
    3. update: moments, and the squares of weight and update for each tensor.
    4. ratio: these squares, summed over the shards (second collective), and φ(‖w‖)/‖u‖.
    5. apply: w -= lr · ratio · u.

    Tensors of which a rank holds all need no second sum; for them 3 to 5 are one operator, `whole`.

    The first collective falls away when neither `max_grad_norm` nor `skip_nonfinite` asks for it. A tensor without a
    gradient keeps its bits and its own step count; which tensors have one must be the same on every rank. Tensors cut
    over two mesh dimensions cost one collective for each.

    The moments have the parameter's dtype and placement; half precision is computed in float32. FSDP2's mixed
    precision keeps the sharded parameters in float32, and these are then the master weights.

    Args:
        params: tensors, groups, or `named_parameters()`; without names they are called "0", "1", ….
        lr: learning rate; a schedule may change it in `param_groups` between steps.
        betas: decay of the two moments.
        eps: added outside the square root.
        weight_decay: part of the update, and so under the trust ratio.
        bias_correction: divide the moments by 1 - beta^t.
        grad_averaging: weigh the gradient with 1 - beta1 in the first moment; with 1 if off.
        max_grad_norm: clip all gradients together to this norm; None and 0 are off.
        weight_norm_bounds: (low, high) to which ‖w‖ is clamped before the ratio is taken.
        trust_ratio_bounds: (low, high) to which the ratio is clamped.
        layer_adaptation: if off, the ratio is 1; this is then AdamW.
        skip_nonfinite: leave everything as it is if any gradient, on any rank, has an Inf or NaN. The test is on the
            float64 sum of squares, so a float64 gradient beyond 1e154 counts as Inf.
        backend: "auto" for the fastest kernels that the tensors' device has, "eager" for plain PyTorch.

    Raises:
        ValueError: a setting is out of range, or a parameter's placement is partial.
        TypeError: a setting or parameter is of the wrong kind.
    """

    last_step: LastStep | None = None

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        bias_correction: bool = True,
        grad_averaging: bool = True,
        max_grad_norm: float | None = None,
        weight_norm_bounds: Bounds = None,
        trust_ratio_bounds: Bounds = None,
        layer_adaptation: bool = True,
        skip_nonfinite: bool = True,
        backend: str = "auto",
    ) -> None:
        if max_grad_norm is not None:
            check_non_negative("max_grad_norm", max_grad_norm)
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; it must be one of {', '.join(map(repr, BACKENDS))}")
        self.bias_correction = bias_correction
        self.grad_averaging = grad_averaging
        self.max_grad_norm = max_grad_norm
        self.skip_nonfinite = skip_nonfinite
        self.backend = backend
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "layer_adaptation": layer_adaptation,
            "weight_norm_bounds": weight_norm_bounds,
            "trust_ratio_bounds": trust_ratio_bounds,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, now or after any step; a tensor named twice in it (tied weights) counts once."""
        param_group["params"] = _without_repeats(param_group["params"])
        super().add_param_group(param_group)
        try:
            check_group(param_group)
            self._check_parameters()
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; `closure`, if given, computes the gradients anew and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches = self._batches()
        if batches:
            grad_norm = self._reduce(batches)
            clip, skip = self._clip(batches, grad_norm)
            whole, cut = ([batch for batch in batches if bool(batch.groups) is which] for which in (False, True))
            norms = [self._whole(batch, clip, skip) for batch in whole]
            sums = self._update(cut, clip, skip)
            cut_norms = self._ratio(cut, sums, skip)
            self._apply(cut, cut_norms, skip)
            names = tuple(name for batch in [*whole, *cut] for name in batch.names)
            weight_norm, update_norm, ratio = torch.cat(norms + cut_norms, dim=1).unbind()
            self.last_step = LastStep(names, weight_norm, update_norm, ratio, grad_norm, clip, skip)
        return loss

    def _reduce(self, batches: list[_Batch]) -> Tensor | None:
        """Return the norm of all gradients together, or None if nothing asks for it."""
        if not (self.max_grad_norm or self.skip_nonfinite):
            return None
        squares = [self._ops.sum_squares(batch.grads).sum() for batch in batches]
        return total_over_shards(squares, [batch.groups for batch in batches]).sqrt()

    def _clip(self, batches: list[_Batch], grad_norm: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the factor on the gradients and whether the step is skipped, both scalars on the device."""
        device = batches[0].weights[0].device
        clip = torch.ones((), dtype=torch.float64, device=device)
        skip = torch.zeros((), dtype=torch.bool, device=device)
        if grad_norm is not None and self.max_grad_norm:
            clip = 1 / (grad_norm / self.max_grad_norm).clamp(min=1)
        if grad_norm is not None and self.skip_nonfinite:
            skip = ~grad_norm.isfinite()
        return clip, skip

    def _whole(self, batch: _Batch, clip: Tensor, skip: Tensor) -> Tensor:
        """Take the three phases that follow for tensors which no other rank has a part of; return as `_ratio` does."""
        lr = batch.settings["lr"]
        lr = lr.to(clip).reshape(()) if isinstance(lr, Tensor) else clip.new_full((), lr)
        constants = *self._constants(batch), *_adaptation(batch.settings)
        return self._ops.lamb_step(*batch.tensors, clip, skip, lr, *constants)

    def _update(self, batches: list[_Batch], clip: Tensor, skip: Tensor) -> list[Tensor]:
        """Advance the moments; return Σw² and Σu² of whole tensors, [2, T] for each batch."""
        sums = [self._ops.lamb_update(*batch.tensors, clip, skip, *self._constants(batch)) for batch in batches]
        return sum_over_shards(sums, [batch.groups for batch in batches])

    def _ratio(self, batches: list[_Batch], sums: list[Tensor], skip: Tensor) -> list[Tensor]:
        """Return ‖w‖, ‖u‖ and the trust ratio, [3, T] for each batch."""
        return [trust_ratio(own, skip, *_adaptation(batch.settings)) for batch, own in zip(batches, sums, strict=True)]

    def _apply(self, batches: list[_Batch], norms: list[Tensor], skip: Tensor) -> None:
        for batch, (_, _, ratio) in zip(batches, norms, strict=True):
            scale = (ratio * batch.settings["lr"]).masked_fill(skip, 0.0)
            beta1, beta2, _, *rest = self._constants(batch)
            self._ops.lamb_apply(*batch.tensors[1:], scale, beta1, beta2, *rest)

    def describe(self) -> str:
        """Return what this optimizer will do, for people: totals, switches, and one line for each group."""
        entries = list(self._named())
        cut = [groups for _, name, p in entries if (groups := shard_groups(name, p))]
        collectives = (2 if self.max_grad_norm or self.skip_nonfinite else 1) * sum(map(len, distinct(cut)))
        total = sum(p.numel() for _, _, p in entries)
        lines = [
            f"Lamb: {len(entries)} tensors, {total:,} elements; {len(cut)} are cut, {collectives} collectives a step",
            "  " + ", ".join(f"{name}={getattr(self, name)!r}" for name in SWITCHES),
        ]
        for number, group in enumerate(self.param_groups):
            elements = sum(p.numel() for p in group["params"])
            settings = ", ".join(f"{name}={group[name]!r}" for name in self.defaults)
            lines.append(f"  group {number}: {len(group['params'])} tensors, {elements:,} elements, {settings}")
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {name: getattr(self, name) for name in SWITCHES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for parameter, own in self.state.items():  # a step that was loaded may lie on the host
            own["step"] = torch.as_tensor(own["step"], dtype=torch.float32, device=parameter.device)

    def _check_parameters(self) -> None:
        entries = [(name, parameter) for _, name, parameter in self._named()]
        for name, parameter in entries:
            check_parameter(name, parameter)
            shard_groups(name, parameter)
            if parameter.device != entries[0][1].device:
                raise ValueError(
                    f"parameter {name!r} is on {parameter.device} but {entries[0][0]!r} on {entries[0][1].device}; "
                    "Lamb needs all on one device: move the model before the optimizer is built"
                )

    @property
    def _ops(self) -> Operators:
        return BACKENDS[self.backend]

    def _named(self) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
        """Yield (group, name, parameter) in order."""
        count = 0
        for group in self.param_groups:
            names = group.get("param_names") or [str(count + i) for i in range(len(group["params"]))]
            count += len(names)
            yield from ((group, name, p) for name, p in zip(names, group["params"], strict=True))

    def _batches(self) -> list[_Batch]:
        """Sort this rank's parts of the tensors that have a gradient; whatever is wrong with them is raised here."""
        ready = [(group, name, p) for group, name, p in self._named() if p.grad is not None]
        for _, name, parameter in ready:
            check_gradient(name, parameter)
        batches: dict[tuple[int, torch.dtype, Groups], _Batch] = {}
        for group, name, parameter in ready:
            groups = shard_groups(name, parameter)
            batch = batches.setdefault(
                (id(group), parameter.dtype, groups), _Batch(group, groups, [], [], [], [], [], [])
            )
            state = self._state(parameter)
            batch.names.append(name)
            batch.grads.append(local_part(cast(Tensor, parameter.grad)))
            batch.weights.append(local_part(parameter))
            batch.exp_avgs.append(local_part(state["exp_avg"]))
            batch.exp_avg_sqs.append(local_part(state["exp_avg_sq"]))
            batch.steps.append(state["step"])
        return list(batches.values())

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    def _constants(self, batch: _Batch) -> tuple[float, float, float, float, float, bool]:
        settings = batch.settings
        beta1, beta2 = settings["betas"]
        beta3 = 1 - beta1 if self.grad_averaging else 1.0
        return beta1, beta2, beta3, settings["eps"], settings["weight_decay"], self.bias_correction


def _adaptation(settings: dict[str, Any]) -> tuple[bool, tuple[float, float], tuple[float, float]]:
    """Return whether tensors are adapted and the bounds on φ(‖w‖) and the ratio."""
    weight_norm, ratio = (settings[name] or (0.0, math.inf) for name in ("weight_norm_bounds", "trust_ratio_bounds"))
    return settings["layer_adaptation"], weight_norm, ratio


def _without_repeats(params: Any) -> Any:
    if isinstance(params, Tensor | set):
        return params
    entries: dict[int, Any] = {}
    for entry in params:
        entries.setdefault(id(entry[1] if isinstance(entry, tuple) else entry), entry)
    return list(entries.values())
