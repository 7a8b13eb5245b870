"""A time of day that somebody sets, for every Python process of a service: the server, those of Ray, and the workers.

The clocks that only count go on. As where a clock is really set, the time of the boot moves too, which the kernel
computes from the time of day. What is no Python has the clock of the machine: Ray's raylet and GCS, and gRPC, to which
Ray's Python gives deadlines by the time of day. So a clock may go back, but not behind that of the machine.
"""

import datetime as dt
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]
REAL = dt.datetime


class Clock:
    """A clock for the processes whose PYTHONPATH is `folder`, and for theirs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self._ahead = folder, folder / "ahead_s"
        self.set(0)
        call = f"set_clock(clock.Path({str(self._ahead)!r}))"
        lines = (
            "import sys",
            f"sys.path.append({str(ROOT)!r})",
            "from tests.system.faults import clock",
            f"clock.{call}",
        )
        (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n")

    def set(self, ahead_s: float) -> None:
        """Let the time of day be so much later than that of the machine, from now on."""
        self._ahead.with_suffix(".new").write_text(str(ahead_s))
        self._ahead.with_suffix(".new").replace(self._ahead)


def set_clock(file: Path) -> None:
    """Have this process read the time of day with the difference in a file, whenever it reads it."""
    real, boot = time.time, psutil._pslinux.boot_time

    def ahead_s() -> float:
        return float(file.read_text())

    class Set(REAL):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return REAL.fromtimestamp(time.time(), tz)

    time.time = lambda: real() + ahead_s()
    time.time_ns = lambda: int(1e9 * time.time())
    psutil._pslinux.boot_time = lambda: boot() + ahead_s()
    sys.meta_path.insert(0, _Finder(Set))


class _Finder(PathFinder):
    """Finds our own modules as ever, and gives those that name `datetime` another one."""

    def __init__(self, replacement: type[dt.datetime]) -> None:
        self._replacement = replacement

    def find_spec(  # type: ignore[override]  # of the class there, of an object here
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in {"server", "workers"}:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_replace(module: ModuleType) -> None:
                execute(module)
                if getattr(module, "datetime", None) is REAL:
                    module.datetime = self._replacement  # type: ignore[attr-defined]

            spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec
