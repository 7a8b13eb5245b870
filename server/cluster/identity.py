"""How a process is told from another one that was given its number later."""

from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def start_of(pid: int) -> str | None:
    """Return when a process was started, in a form that identifies it; None when no such process lives.

    On Linux this is the boot's id and the number of clock ticks from the boot to the start of the process. The time of
    day is of no use here: it is computed from the time of the boot, which moves whenever somebody sets the clock.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if not psutil.LINUX:  # other kernels keep the time of day at which the process was started
            return repr(process.create_time())
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
    # proc_pid_stat(5): field 2 is a name in brackets, which may hold anything; field 22 is the start.
    ticks = stat.rpartition(")")[2].split()[19]
    return f"{_BOOT_ID.read_text().strip()}:{ticks}"
