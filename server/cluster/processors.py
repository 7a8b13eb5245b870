"""How many processors this process may use: fewer than the machine has in a container or under a batch system."""

import math
import os
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def processors(groups: Path = _CONTROL_GROUPS) -> int:
    """Return the processors that this process may run on, within what its control group lets it use; at least one."""
    # Not everywhere: macOS has neither affinity nor control groups.
    runnable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(runnable, _quota(groups))))


def _quota(groups: Path) -> float:
    """Return the processors' time a second that a container is allowed; infinity without a limit."""
    try:
        if (groups / "cpu.max").exists():  # version 2
            limit, period = (groups / "cpu.max").read_text().split()
        else:
            limit, period = (
                (groups / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
    except OSError:  # this system has no such limits
        return math.inf
    return math.inf if limit in {"max", "-1"} else int(limit) / int(period)
