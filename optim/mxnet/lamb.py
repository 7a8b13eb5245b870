"""LAMB with the arguments, states and results of MXNet 2.

Shapes: T tensors in one launch; `sums_2T` is [2, T].
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optim.kernels.operands import Memory, Operand, Operands
from optim.kernels.operators import BACKENDS, Kernels
from optim.kernels.settings import Settings, table
from optim.validation import check_non_negative

from .optimizer import Index, Moments, Multipliers, Optimizer, Scheduler, State
from .validation import HALF, check_call, check_count, check_decay, check_numbers, check_switches, is_on


class _Entry(NamedTuple):
    """One tensor of a launch. The operand's weight is `weight` itself, unless that is of half precision."""

    key: Index
    weight: Tensor
    operand: Operand
    lr: float


class LAMB(Optimizer):
    """The optimizer `LAMB` of MXNet 2 on torch tensors.

    `step` computes one tensor after another in plain PyTorch, `fused_step` up to `aggregate_num` in a launch of the
    fastest operators that their device has; `update` is the one that `use_fused_step` says. All take lists of indices,
    weights, gradients and states, and change weights and states in place. Results are MXNet's own but for these
    deliberate differences, where it has defects or its two paths disagree:

    * `fused_step` counts an update once whatever `aggregate_num` is, and float16 master weights always move.
    * `clip_gradient`, `lower_bound` and `upper_bound` of 0 or less are off in `step` too.
    * A trust ratio that is not a finite number is 1 in `fused_step` too, so that NaN stays in the elements it is in;
      squares are summed in float64, so that norms neither vanish nor overflow.
    * The counts of all tensors of a call advance before the scheduler is read once for all, in `step` too, and an
      Updater makes one call whatever `aggregate_num` and the dtypes are: the tensors of a step have one rate.
    * Gradients are never written to, and at a rate of 0 no bit of a weight is.
    * Tensors without dimensions, states with master weights, and any number of tensors work in every call.
    * `multi_precision` covers bfloat16 as it does float16.
    * A scheduler whose warm-up is as long as it lasts ends at its peak, not in a division by zero.
    * Wrong settings raise ValueError (`aggregate_num` above 45 too) or TypeError when they are given. What cannot be
      updated raises before anything is written: float16 without master weights, float64, sparse, sharded, states that
      are not float32, an index that is there twice.
    * There is no argument `sym`, nor `sym_info`. A scheduler's rate that `learning_rate` replaces is logged, not
      printed.
    * `Updater.get_states` is no pickle, and `set_states` keeps the `param_dict` that is there.

    With a scheduler pass `learning_rate=None`: any other, the default included, replaces the scheduler's `base_lr`.

    Args:
        learning_rate: None is the scheduler's, or 0.01 without one.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added outside the square root.
        lower_bound: least norm of a weight that the trust ratio is taken of.
        upper_bound: greatest such norm; it wins over `lower_bound`.
        bias_correction: divide the moments by 1 - beta^t.
        aggregate_num: tensors in a launch of `fused_step`, at most 45; 0 is 1.
        use_fused_step: whether `update` is `fused_step`.
        rescale_grad: multiplied with every gradient, before it is clipped.
        param_idx2name: names of the indices, for multipliers by name.
        wd: weight decay, under the trust ratio.
        clip_gradient: every element of the gradients is clipped to this absolute value.
        lr_scheduler: called with the number of updates, returns the learning rate.
        begin_num_update: updates before the first.
        multi_precision: keep float32 master weights for those of half precision.
        param_dict: parameters by index, whose `lr_mult` and `wd_mult` are read at every step.
    """

    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        bias_correction: bool = True,
        aggregate_num: int = 4,
        use_fused_step: bool | None = True,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Scheduler | None = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Multipliers] | None = None,
    ) -> None:
        check_decay(beta1=beta1, beta2=beta2)
        check_non_negative("epsilon", epsilon)
        check_numbers(lower_bound=lower_bound, upper_bound=upper_bound)
        check_count("aggregate_num", aggregate_num, most=45)
        check_switches(bias_correction=bias_correction, use_fused_step=use_fused_step or False)
        super().__init__(
            learning_rate,
            rescale_grad,
            param_idx2name,
            wd,
            clip_gradient,
            lr_scheduler,
            begin_num_update,
            multi_precision,
            param_dict,
        )
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        self.bias_correction = bias_correction
        self.aggregate_num = aggregate_num
        self.use_fused_step = bool(use_fused_step)
        self._memories: dict[Index, Memory] = {}

    def create_state(self, index: Index, weight: Tensor) -> Moments:  # noqa: ARG002 - MXNet's signature
        """Return (mean, var) for a weight: zeros of its shape, in float32."""
        mean = torch.zeros_like(weight, dtype=torch.float32, requires_grad=False)
        return mean, torch.zeros_like(mean)

    def create_state_multi_precision(self, index: Index, weight: Tensor) -> State:
        """Return (weight32, (mean, var)) for half precision under `multi_precision`, else (mean, var)."""
        moments = self.create_state(index, weight)
        return (weight.detach().float(), moments) if self.multi_precision and weight.dtype in HALF else moments

    def step(
        self, indices: Sequence[Index], weights: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[State]
    ) -> None:
        """Update tensor by tensor, in plain PyTorch."""
        self._run("eager", 1, indices, weights, grads, states)

    def fused_step(
        self, indices: Sequence[Index], weights: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[State]
    ) -> None:
        """Update `aggregate_num` tensors in a launch; a launch holds one device and one weight decay."""
        self._run("auto", max(1, self.aggregate_num), indices, weights, grads, states)

    def update(
        self, indices: Sequence[Index], weights: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[State]
    ) -> None:
        """Update by `fused_step` or `step`, as `use_fused_step` says."""
        run = self.fused_step if self.use_fused_step else self.step
        run(indices, weights, grads, states)

    def update_multi_precision(
        self, indices: Sequence[Index], weights: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[State]
    ) -> None:
        """Update; the states say which tensors have master weights."""
        self.update(indices, weights, grads, states)

    @torch.no_grad()
    def _run(
        self,
        backend: str,
        size: int,
        indices: Sequence[Index],
        weights: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[State],
    ) -> None:
        check_call(indices, weights, grads, states)
        self._update_count(indices)
        rates = zip(self._get_lrs(indices), self._get_wds(indices), strict=True)
        alike: dict[tuple[torch.device, float, Kernels], list[_Entry]] = {}
        counts = [self._index_update_count[index] - 1.0 for index in indices]
        devices = {weight.device for weight in weights}
        before = {device: torch.tensor(counts, dtype=torch.float32, device=device).unbind() for device in devices}
        for n, (index, weight, state, (lr, wd)) in enumerate(zip(indices, weights, states, rates, strict=True)):
            operand = self._operand(weight, grads[n], state, before[weight.device][n])
            key = weight.device, wd, BACKENDS[backend](operand)
            alike.setdefault(key, []).append(_Entry(index, weight, operand, lr))
        for (_, wd, kernels), entries in alike.items():
            for start in range(0, len(entries), size):
                self._launch(kernels, wd, entries[start : start + size])

    def _operand(self, weight: Tensor, grad: Tensor, state: Any, step: Tensor) -> Operand:
        """Return a tensor with its gradient in float32, which is clipped if that is on."""
        master, (mean, var) = (weight, state) if isinstance(state[1], Tensor) else state
        grad = grad.detach().float()
        if is_on(self.clip_gradient):
            grad = (grad * self.rescale_grad).clamp_(-self.clip_gradient, self.clip_gradient)
        return Operand(master, grad, mean, var, step)

    def _launch(self, kernels: Kernels, wd: float, entries: list[_Entry]) -> None:
        device = entries[0].operand.weight.device
        row = Settings(self.beta1, self.beta2, 1 - self.beta1, self.epsilon, wd, bias_correction=self.bias_correction)
        # Found by the first index of a launch; what the memory holds for other tensors is made anew.
        memory = self._memories.setdefault(entries[0].key, Memory())
        settings_T11 = memory.recall("rows", (row, len(entries)), lambda: table([row] * len(entries)))
        operands = Operands.of([entry.operand for entry in entries], settings_T11, memory)
        factor = 1.0 if is_on(self.clip_gradient) else self.rescale_grad  # on gradients that are not rescaled yet
        clip_3 = torch.tensor([0.0, factor, 0.0], dtype=torch.float64, device=device)
        sums_2T = kernels.lamb_update(operands, clip_3)
        lr_T = torch.tensor([entry.lr for entry in entries], dtype=torch.float64, device=device)
        kernels.lamb_apply(operands, self._trust_ratio(sums_2T) * lr_T)
        for entry in entries:
            if entry.weight is not entry.operand.weight:
                entry.weight.copy_(entry.operand.weight)

    def _trust_ratio(self, sums_2T: Tensor) -> Tensor:
        """Return the ratios of a launch, float64 [T], from Σw² and Σu², float64 [2, T]."""
        weight_norm_T, update_norm_T = sums_2T.sqrt().unbind()
        if is_on(self.lower_bound):
            weight_norm_T = weight_norm_T.clamp(min=self.lower_bound)
        if is_on(self.upper_bound):
            weight_norm_T = weight_norm_T.clamp(max=self.upper_bound)
        ratio_T = (weight_norm_T / update_norm_T).float()
        # Either norm being 0, too great or NaN shows in the ratio, as 0, Inf or NaN.
        return ratio_T.masked_fill(~ratio_T.isfinite() | (ratio_T == 0), 1.0).double()
