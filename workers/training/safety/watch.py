"""Notices that a rank hangs, which a collective would wait for, and ends this process so that a launcher starts anew.

A thread of each rank tells the process group's store every few seconds that it lives; rank 0 looks for all others, and
they look for rank 0. A process that is stopped, or whose machine is gone, falls silent. A rank that lives but is stuck,
in a collective or in its own work, is noticed by steps that no longer come: then every rank says where it is.
"""

import faulthandler
import os
import socket
import statistics
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

from workers import ranks

MEDIANS = 10
"""A step may take as many times the median of the last ones, if that is longer than the limit."""
HUNG = 75
"""Exit code of a process that ended because a rank hangs: the same attempt might succeed another time."""
_LEFT = "left"
_FEWEST_STEPS = 3  # the first ones of a phase may compile
_LAST_STEPS = 32
_LEAVE_S = 5.0


class Watch:
    """Watches over the ranks while its block runs. Every rank has one, and enters it at the same time.

    Args:
        limit: how long a rank may be silent, and the shortest time that a step may take.
        alert: is told who hangs before the process ends; on rank 0 alone.
    """

    def __init__(self, limit: timedelta, alert: Callable[[str], None] | None = None) -> None:
        self._alert = alert
        self._limit_s = limit.total_seconds()
        self._beat_s, self._tick_s = self._limit_s / 12, self._limit_s / 60
        self._hosts: list[str] = []
        self._store = ranks.store("watch")
        self._beats: dict[int, bytes] = {}
        self._steps_s: deque[float] = deque(maxlen=_LAST_STEPS)
        self._since: float | None = None  # of the step that is being taken; None where something else is done
        self._idle_s = 0.0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"watch-{target.__name__}", daemon=True)
            for target in (self._tell_and_hear, self._look)
        ]

    def __enter__(self) -> Self:
        """Begin to watch, once every rank has come."""
        self._tell("0")
        self._hosts = ranks.gather(socket.gethostname())
        if ranks.world_size() > 1:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take leave of the other ranks, which may have something left to do."""
        self._over.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=_LEAVE_S)
        with suppress(RuntimeError):  # the store may be gone already, and with it whoever would look
            self._tell(_LEFT)

    def step_taken(self, *, goes_on: bool) -> None:
        """Take note of the end of a step. After it, if it `goes_on`, the next step follows at once.

        Where not, as before an evaluation, a checkpoint or the first step of a phase, time does not count until the
        next step has been taken.
        """
        now = time.perf_counter()
        if self._since is not None:
            self._steps_s.append(now - self._since)
        else:
            self._steps_s.clear()
        self._idle_s = 0.0
        self._since = now if goes_on else None

    def _tell(self, beat: str) -> None:
        self._store.set(str(ranks.rank()), beat)

    def _tell_and_hear(self) -> None:
        """Exchange signs of life. Where the store does not answer, this thread waits, and the other one notices."""
        looked_at = list(range(1, ranks.world_size())) if ranks.rank() == 0 else [0]
        number = 0
        while not self._over.wait(self._beat_s):
            number += 1
            try:
                self._tell(str(number))
                beats = self._store.multi_get([str(each) for each in looked_at])
            except RuntimeError:  # the store is gone with the process that held it; it is silent from now on
                continue
            self._beats = dict(zip(looked_at, beats, strict=True))

    def _look(self) -> None:
        """Count for how long nothing was heard. The time in which this process itself was stopped does not count."""
        looked_at = range(1, ranks.world_size()) if ranks.rank() == 0 else range(1)
        known: dict[int, bytes | None] = {}
        silent_s = dict.fromkeys(looked_at, 0.0)
        while not self._over.wait(self._tick_s):
            self._idle_s += self._tick_s
            for each in looked_at:
                beat = self._beats.get(each)
                is_news = beat is not None and beat != known.get(each)
                silent_s[each] = 0.0 if is_news or beat == _LEFT.encode() else silent_s[each] + self._tick_s
                known[each] = beat
            allowed_s = self._limit_s - 2 * self._beat_s  # so that it is noticed within the limit
            silent = [each for each in looked_at if silent_s[each] > allowed_s]
            if silent:
                self._end(f"no sign of life of {self._named(silent)} for {allowed_s:.0f} s")
            elif self._is_stuck():
                self._end(f"no step came to its end for {self._idle_s:.0f} s. Each rank's log says where that rank is")

    def _is_stuck(self) -> bool:
        if self._since is None or len(self._steps_s) < _FEWEST_STEPS:
            return False
        return self._idle_s > max(self._limit_s, MEDIANS * statistics.median(self._steps_s))

    def _named(self, silent: list[int]) -> str:
        shown = ", ".join(f"{each} on {self._hosts[each]}" for each in silent[:8])
        more = f" and {len(silent) - 8} more" if len(silent) > 8 else ""
        return f"rank{'s' * (len(silent) > 1)} {shown}{more}"

    def _end(self, problem: str) -> None:
        """End the process, whose main thread may be waiting in a collective that nothing else ends."""
        detail = f"{problem}. The attempt ends here; the next one goes on from the checkpoint"
        try:
            sys.stderr.write(f"rank {ranks.rank()}: {detail}\n")
            faulthandler.dump_traceback(sys.__stderr__ or 2)
            if self._alert:
                self._alert(detail)
            time.sleep(self._beat_s)  # where all ranks notice it, each has time to say so before it loses the first one
        except Exception:  # noqa: BLE001 -- whatever it is, the process has to end
            traceback.print_exc()
        finally:
            os._exit(HUNG)
