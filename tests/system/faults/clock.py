"""A server with a clock that somebody sets: `python -m tests.system.faults.clock FILE serve …`.

FILE says by how many seconds the time of day differs from that of the machine, now. As where a clock is really set, the
time of the boot, which the kernel computes from it, moves too, and the clocks that only count go on. Ray and the
workers have the clock of the machine.
"""

import datetime as dt
import sys
import time
from pathlib import Path
from typing import Any

import psutil

REAL = dt.datetime


def set_clock(file: Path) -> None:
    """Have every module of the server read the time of day from here on with the difference in `file`."""
    real, boot = time.time, psutil._pslinux.boot_time

    def ahead_s() -> float:
        return float(file.read_text() or 0)

    class Set(REAL):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return REAL.fromtimestamp(time.time(), tz)

    time.time = lambda: real() + ahead_s()
    time.time_ns = lambda: int(1e9 * time.time())
    psutil._pslinux.boot_time = lambda: boot() + ahead_s()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in {"server", "workers"} and getattr(module, "datetime", None) is REAL:
            module.datetime = Set  # type: ignore[attr-defined]


if __name__ == "__main__":
    import server.http.serve
    from server.__main__ import main

    assert server.http.serve
    set_clock(Path(sys.argv.pop(1)))
    main()
