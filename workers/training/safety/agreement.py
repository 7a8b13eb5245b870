"""What all ranks obey between two flushes, without the host waiting for the device.

A wish of a rank goes round with the step in which it came up, and its result is read after the next step, when it has
long been there. So all ranks obey after the same step, at the latest the one after that in which a command arrived.
"""

import torch

from workers.contract.push import Command
from workers.ranks import all_reduce_sum


class Agreement:
    """Every rank has one, and all call it after the same steps. C = commands."""

    def __init__(self, device: torch.device) -> None:
        self._wishes_CC = torch.eye(len(Command), device=device)  # row c: how a rank asks for command c
        on_gpu = device.type == "cuda"
        self._told_C = torch.zeros(len(Command), pin_memory=on_gpu)
        self._arrival = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call] # not annotated in torch
        self._is_pending = False

    def exchange(self, wish: Command) -> Command:
        """Tell all ranks what this one wants, and return the strongest of what any of them wanted at the last call."""
        agreed = self._read()
        told_C = all_reduce_sum(self._wishes_CC[list(Command).index(wish)].clone())
        self._told_C.copy_(told_C, non_blocking=True)
        if self._arrival is not None:
            self._arrival.record()
        self._is_pending = True
        return agreed

    def forget(self) -> None:
        """Drop what is on its way: the ranks have agreed otherwise meanwhile."""
        self._is_pending = False

    def _read(self) -> Command:
        if not self._is_pending:
            return Command.NONE
        if self._arrival is not None:
            self._arrival.synchronize()
        return list(Command)[int(self._told_C.nonzero()[-1])]  # the last one ends the run most surely
