"""SIGTERM and Ctrl-C: the first lets the step be finished and a checkpoint be written, a second Ctrl-C ends at once.

On Ray there is only SIGTERM, and the loop runs in a thread beside the main one: see `heed_sigterm`.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from workers.contract.push import Command

_ONE_CTRL_C_S = 0.5
"""At a terminal a Ctrl-C reaches each rank twice: from the terminal, and handed on by torchrun."""


class InterruptedBeforeTrainingError(BaseException):
    """The process was told to end before its first step; there is nothing to save. No `except Exception` stops it."""


class StopRequest:
    """Whether this process was told to end.

    Attributes:
        command: What all ranks do when one of them is told: pause, where nobody starts the next attempt by himself.
        signal: The signal that said so.
    """

    def __init__(self, command: Command = Command.PAUSE) -> None:
        self.command = command
        self.signal: signal.Signals | None = None
        self._is_training = False

    @property
    def is_asked(self) -> bool:
        """Whether there was a signal."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code by which a shell knows the signal, once there was one."""
        return 128 + (self.signal or 0)

    @contextmanager
    def while_training(self) -> Iterator[None]:
        """Leave it to the block to look whether it should end; outside, the process ends at once."""
        self._is_training = True
        try:
            yield
        finally:
            self._is_training = False

    def ask(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have the loop end after its step, as this signal would."""
        self.signal = self.signal or number

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Take note of a signal."""
        told = signal.Signals(number)
        self.ask(told)
        if not self._is_training:
            raise InterruptedBeforeTrainingError(told.name)


of_ray_worker = StopRequest(Command.MAKE_WAY)
"""What `heed_sigterm` tells the loop, which runs in another thread of the same process."""


def heed_sigterm() -> None:
    """Take SIGTERM for a request to make way for the next attempt. Only the main thread can call this.

    Ray's own handler would end the process at once. Where Ray wants that, it kills the process a few seconds later.
    """
    signal.signal(signal.SIGTERM, lambda *_: of_ray_worker.ask())


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and Ctrl-C into a request while the block runs. Only the main thread can call this."""
    request = StopRequest()
    before = {number: signal.signal(number, request.on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    # Python calls a handler only between two of its own instructions, never inside a collective that hangs. The number
    # of the signal is written to this socket at once.
    wakeup = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second_ctrl_c, args=(ours,), name="signals", daemon=True).start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        pythons.close()


def _end_at_second_ctrl_c(signals: socket.socket) -> None:
    first_s: float | None = None
    with signals:
        while numbers := signals.recv(1):
            if numbers[0] != signal.SIGINT:
                continue
            if first_s is None:
                first_s = time.monotonic()
            elif time.monotonic() - first_s > _ONE_CTRL_C_S:
                os._exit(128 + signal.SIGINT)
