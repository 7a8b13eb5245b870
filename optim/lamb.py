"""LAMB for one rank and for many.

Shapes: T tensors in one call, n sums of squares; `norms_4T` is [4, T].
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.distributed import ProcessGroup
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT, StateDict

from .description import described
from .groups import Named, device_of, is_waiting, named, without_repeats
from .kernels.operators import BACKENDS
from .last_step import LastStep
from .sharding import shard_groups, sum_over_shards
from .state.dicts import loaded_form, saved_form
from .state.parameter import lay_out, new_state
from .step.calls import Calls
from .step.clipping import Clip, Scaling, clipped, squares_of, squares_of_norm
from .step.gradients import placed_gradients
from .step.ready import Ready, Step, settings_of
from .step.remembered import Call
from .validation import (
    SWITCHES,
    check_gradient,
    check_group,
    check_held_state,
    check_local_gradient,
    check_moments,
    check_one_device,
    check_parameter,
    check_process_group,
    check_switches,
)

Bounds = tuple[float, float] | None


class Lamb(Optimizer):
    """LAMB as its paper prints it. Norms are those of full tensors, however these are sharded.

    A step has five phases, and at most two collectives for each device mesh, for any number of tensors:

    1. reduce: the squares of all gradients, summed over the shards (first collective).
    2. clip: from that norm, the factor on every gradient and whether all ranks skip the step.
    3. update: moments, and the squares of weight and update for each tensor.
    4. ratio: these squares, summed over the shards (second collective), and φ(‖w‖)/‖u‖.
    5. apply: w -= lr · ratio · u.

    Tensors that a rank holds completely need no second sum; for them, phases 3 to 5 are one operator, `lamb_step`.

    There is no first collective when neither `max_grad_norm` nor `skip_nonfinite` asks for it. A tensor without a
    gradient keeps its bits and its own step count; which tensors have one must be the same on every rank. Tensors that
    are sharded over two mesh dimensions cost one collective for each. Under tensor parallelism, a gradient may have
    another placement than its parameter. It is then redistributed first, and all gradients that are partial sums share
    one more collective for each mesh dimension.

    Where each rank has plain tensors of its own, as pipeline stages and `ZeroRedundancyOptimizer` do, give the
    `process_group` of these ranks: all clip by one norm and skip together, for one collective more. Without it, each
    rank would clip by its own norm, and one that meets a NaN would skip alone.

    `torch.amp.GradScaler` leaves it to the step to undo its scale, so the gradients may be float16; a step in which it
    has found an Inf or NaN is skipped, whatever `skip_nonfinite` is. A parameter that is frozen or lazy may be of any
    dtype and on any device: it is looked at when it has a gradient.

    Half-precision tensors are computed in float32. FSDP2's mixed precision has its sharded parameters in float32, which
    are then the master weights; for parameters that are themselves half precision there is `master_weights`.

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
        layer_adaptation: if False, the ratio is 1; this is then AdamW. "decayed" adapts where weight_decay is not 0.
        skip_nonfinite: leave everything as it is if any gradient, on any rank, has an Inf or NaN; replicas are assumed
            to have the same gradients, as HSDP and DDP reduce them. The float64 sum of squares is tested, so a float64
            gradient beyond 1e154 counts as Inf.
        master_weights: keep float32 weights and moments for parameters of half precision, which become their copies.
        moments: "full" stores them in the weights' dtype, 8 bytes for a float32 parameter; "bfloat16" rounds them
            stochastically to 4 bytes, "8bit" to 2.03, by blocks of 256. The update is computed from the moments as
            they are stored, so the trust ratio is that of the update that is applied. A group may have its own.
        backend: "auto" for the fastest kernels that the tensors' device has, "eager" for plain PyTorch.
        process_group: ranks that have other plain tensors of the same model.

    Raises:
        ValueError: a setting is out of range, a parameter's placement is partial, or FSDP1 has flattened it.
        TypeError: a setting or parameter is of the wrong kind.
    """

    _step_supports_amp_scaling = True
    """Tells `torch.amp.GradScaler` to set `grad_scale` and `found_inf` instead of unscaling the gradients."""

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
        layer_adaptation: bool | Literal["decayed"] = True,
        skip_nonfinite: bool = True,
        master_weights: bool = False,
        moments: Literal["full", "bfloat16", "8bit"] = "full",
        backend: str = "auto",
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.bias_correction = bias_correction
        self.grad_averaging = grad_averaging
        self.max_grad_norm = max_grad_norm
        self.skip_nonfinite = skip_nonfinite
        self.master_weights = master_weights
        self.moments = moments
        self.backend = backend
        check_process_group(process_group)
        self.process_group = process_group
        # Not an attribute of the class: wrappers that delegate by __getattr__ would find that one instead of this one.
        self.last_step: LastStep | None = None
        self._calls = Calls()
        check_switches(self)
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
        param_group["params"] = without_repeats(param_group["params"])
        super().add_param_group(param_group)
        try:
            check_group(param_group, self)
            entries = [each for each in named(self.param_groups) if not is_waiting(each.parameter)]
            self._check(entries)
            for _, name, parameter in entries:
                shard_groups(name, parameter)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None, *, grad_norm: Tensor | float | None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float], *, grad_norm: Tensor | float | None = None) -> float: ...

    # What a step does by address and by identity cannot be traced: torch.compile breaks its graph once, here.
    @_disable_dynamo
    @torch.no_grad()
    def step(
        self, closure: Callable[[], float] | None = None, *, grad_norm: Tensor | float | None = None
    ) -> float | None:
        """Take one step; `closure`, if given, computes the gradients anew and its loss is returned.

        `grad_norm` is the norm of all gradients of all ranks as they are now, where it is known, as by
        `clip_grad_norm_`; then it is not taken again. A norm that is Inf or NaN skips the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        calls = self._present_calls()
        if calls or self.process_group is not None:
            clip = self._clip(calls, grad_norm)
            local, sharded = ([call for call in calls if bool(call.groups) is which] for which in (False, True))
            norms = [call.kernels.lamb_step(call.operands, clip.applied, call.lr) for call in local]
            norms += self._step_sharded(sharded, clip.applied)
            names = tuple([name for call in [*local, *sharded] for name in call.names])
            self.last_step = LastStep(names, clip.told, tuple(norms), clip.has_norm)
        return loss

    def _clip(self, calls: list[Call], grad_norm: Tensor | float | None) -> Clip:
        """Reduce and clip: return the norm of all gradients, the factor on them, and whether to skip."""
        scaling = Scaling.of(self)
        device = calls[0].operands.device if calls else device_of(self.param_groups)
        if grad_norm is not None:
            squares_n = squares_of_norm(grad_norm, device, scaling)
        elif self._wants_grad_norm or scaling.is_on:
            squares_n = squares_of(calls, device, self.process_group, scaling)
        else:
            unclipped_3 = self._calls.unclipped(device)
            return Clip(unclipped_3, unclipped_3, has_norm=False)
        return clipped(calls, squares_n, scaling, self.max_grad_norm or 0.0, skip_nonfinite=self.skip_nonfinite)

    def _step_sharded(self, calls: list[Call], clip_3: Tensor) -> list[Tensor]:
        """Update, ratio and apply; return ‖w‖, ‖u‖, trust ratio and the factor on u, float64 [4, T] for each call."""
        sums = [call.kernels.lamb_update(call.operands, clip_3) for call in calls]
        norms = []
        for call, sums_2T in zip(calls, sum_over_shards(sums, [call.groups for call in calls]), strict=True):
            norms_4T = call.kernels.lamb_ratio(call.operands, sums_2T, clip_3, call.lr)
            call.kernels.lamb_apply(call.operands, norms_4T[3])
            norms.append(norms_4T)
        return norms

    @property
    def _wants_grad_norm(self) -> bool:
        return bool(self.max_grad_norm) or self.skip_nonfinite

    def describe(self) -> str:
        """Return what this optimizer will do, for people: totals, switches, and one line for each group."""
        return described(self.param_groups, self, [*self.defaults, "moments"], takes_norm=self._wants_grad_norm)

    def state_dict(self) -> StateDict:
        """Return the state as PyTorch's optimizers do; 8-bit moments are saved in float32.

        The groups have the parameters' names if these were given; `torch.distributed.checkpoint` saves by them.
        """
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        saved = saved_form(self.param_groups, self.state)
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what `state_dict` returned, or the state of apex's or timm's LAMB or torch's AdamW.

        Parameters of a group are found by name if both sides have names, whatever their order, else by position.

        From the groups of another optimizer, the settings that Lamb's groups have are taken over, such as lr. Moments
        are stored in this optimizer's format, and full tensors are sharded as the parameters are. What others have put
        into the state is loaded too.

        Raises:
            ValueError: the groups or names do not match, an entry is missing or misshapen, or it was made with another
                bias_correction, grad_averaging or max_grad_norm. The optimizer is then as it was.
        """
        saved = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, saved)
            saved = saved if changed is None else changed
        loaded = loaded_form(saved, self.param_groups, list(named(self.param_groups)), self)
        self.state = defaultdict(dict, loaded["state"])
        self.param_groups = loaded["param_groups"]
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("last_step", "_calls", "process_group", "moments", *SWITCHES)
        return super().__getstate__() | {name: getattr(self, name) for name in kept}

    def _check(self, entries: Sequence[Named]) -> None:
        """Raise TypeError or ValueError for a parameter that cannot be stepped."""
        for number, name, parameter in entries:
            moments = self.param_groups[number].get("moments", self.moments)
            check_parameter(name, parameter, moments, master_weights=self.master_weights)
        check_one_device(entries)

    def _present_calls(self) -> list[Call]:
        """Return the calls of this step; errors in tensors or settings are raised here."""
        for group in self.param_groups:  # a schedule may have written anything there
            check_group(group, self)
        switches = {"bias_correction": self.bias_correction, "grad_averaging": self.grad_averaging}
        settings = [settings_of(group, **switches) for group in self.param_groups]
        step = Step(self.param_groups, self.state, settings, BACKENDS[self.backend])
        calls = self._calls.remembered(step)
        return self._calls.built(step, self._ready()) if calls is None else calls

    def _ready(self) -> list[Ready]:
        """Return the tensors that have a gradient, with their state."""
        found = [each for each in named(self.param_groups) if each.parameter.grad is not None]
        self._check(found)
        for _, name, parameter in found:
            check_gradient(name, parameter)
        grads = placed_gradients([each.name for each in found], [each.parameter for each in found])
        for (_, name, parameter), grad in zip(found, grads, strict=True):
            check_local_gradient(name, parameter, grad)
        return [
            Ready(each.group, each.name, each.parameter, grad, shard_groups(*each[1:]), self._state(*each))
            for each, grad in zip(found, grads, strict=True)
        ]

    def _state(self, group: int, name: str, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        moments = self.param_groups[group].get("moments", self.moments)
        if "step" not in state:  # others may have put something there first
            state.update(new_state(parameter, moments, master_weights=self.master_weights))
        check_held_state(name, parameter, state)
        check_moments(name, state, moments)
        lay_out(parameter, state)
        return state
