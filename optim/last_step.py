"""What a step leaves behind for those who watch it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LastStep:
    """What a step did. T = tensors that had a gradient; all tensors lie on the device, and reading one waits for it.

    A skipped step moved nothing: its update norms are 0 and its ratios 1. The tensors are put together when they are
    asked for, so a step that nobody looks at pays nothing for them.
    """

    names: tuple[str, ...]
    """[T], the tensors that are not sharded first."""
    clip: Tensor
    """float64 [3], what `lamb_clip` returned."""
    norms: tuple[Tensor, ...]
    """What `lamb_ratio` returned for each call, float64 [4, T of the call]."""
    has_grad_norm: bool
    """Whether clipping or skipping asked for the norm of the gradients."""

    @property
    def weight_norm(self) -> Tensor:
        """‖w‖ before the step, float64 [T]."""
        return self._row(0)

    @property
    def update_norm(self) -> Tensor:
        """‖u‖, float64 [T]."""
        return self._row(1)

    @property
    def trust_ratio(self) -> Tensor:
        """φ(‖w‖)/‖u‖, float64 [T]."""
        return self._row(2)

    @property
    def grad_norm(self) -> Tensor | None:
        """The norm of all gradients before clipping, float64 scalar; None if nothing asked for it."""
        return self.clip[0] if self.has_grad_norm else None

    @property
    def clip_coef(self) -> Tensor:
        """What the gradients were multiplied with, float64 scalar."""
        return self.clip[1]

    @property
    def skipped(self) -> Tensor:
        """Whether a gradient was not finite and nothing was changed, bool scalar."""
        return self.clip[2] != 0

    def _row(self, number: int) -> Tensor:
        return torch.cat([self.clip.new_empty(0), *[norms[number] for norms in self.norms]])
