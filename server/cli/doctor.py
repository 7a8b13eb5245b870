"""`bigbatch doctor`: what bigbatch needs and this machine lacks, and how to get it."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from server.ports import obstacle
from workers.contract.problems import counted

NEEDED_GIB = 2.0
ADVISED_GIB = 20.0
_TORCH = "import torch; print(torch.version.cuda or '', torch.cuda.device_count())"
_KERNEL = "import optim; print(*optim.backend('cpu'), sep='\\n')"


class Mark(StrEnum):
    """How a check ended."""

    GOOD = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do about it."""

    mark: Mark
    what: str
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form; the mark by its name."""
        return asdict(self) | {"mark": self.mark.name.lower()}


def examine(home: Path, host: str, port: int) -> Iterator[Finding]:
    """Yield one finding after the other; looking at torch and compiling the kernel take seconds."""
    yield python()
    yield torch()
    yield kernel()
    yield ray()
    yield listening(host, port)
    yield disk(home)
    yield shared_memory()
    yield chromium()


def python() -> Finding:
    """Name the interpreter; an older one than 3.11 does not come this far."""
    return Finding(Mark.GOOD, "Python", platform.python_version())


def torch() -> Finding:
    """Import torch in a process of its own and ask it for GPUs."""
    if _installed("torch") is None:
        return Finding(Mark.MISSING, "torch", "not installed", "run `make setup`")
    probe = _python(_TORCH)
    if probe.returncode:
        return Finding(Mark.MISSING, "torch", f"cannot be imported: {_reason(probe)}", "run `make clean setup`")
    cuda, gpus = probe.stdout.rstrip("\n").split(" ")
    found = f"{_installed('torch')}, {f'CUDA {cuda}' if cuda else 'no CUDA'}, {counted(int(gpus), 'GPU')}"
    if gpus == "0" and shutil.which("nvidia-smi"):
        return Finding(Mark.WARNING, "torch", found, "this machine has a GPU: install a torch built for its driver")
    return Finding(Mark.GOOD, "torch", found)


def kernel() -> Finding:
    """Ask a process of its own who computes LAMB on the CPU; a kernel that was never compiled here is compiled now."""
    what, probe = "CPU kernel", _python(_KERNEL)
    if probe.returncode:
        return Finding(Mark.MISSING, what, f"optim cannot be used: {_reason(probe)}", "run `make clean setup`")
    name, reason = probe.stdout.strip().split("\n", maxsplit=1)
    if name == "fused":
        return Finding(Mark.GOOD, what, f"the fused {reason}")
    remedy = "install a C++ compiler (Debian: apt-get install g++), or name another one in the variable CXX"
    return Finding(Mark.WARNING, what, f"plain PyTorch, several times slower: {reason}", remedy)


def ray() -> Finding:
    """Check that Ray is installed."""
    found = _installed("ray")
    if found is None:
        return Finding(Mark.MISSING, "Ray", "not installed", "`make setup`, or pip install 'bigbatch[service]'")
    return Finding(Mark.GOOD, "Ray", found)


def listening(host: str, port: int) -> Finding:
    """Check that `bigbatch serve` could listen on the port."""
    what = f"port {port}"
    found = obstacle(host, port)
    if found is None:
        return Finding(Mark.GOOD, what, "free")
    return Finding(
        Mark.WARNING, what, found, "choose another one for `serve` and `demo` with --port, or another --host"
    )


def disk(home: Path) -> Finding:
    """Check the space for runs and checkpoints."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**30
    found = f"{free:,.1f} GiB free for {home}"
    remedy = "free some space, or name another folder with --home"
    if not os.access(existing, os.W_OK):
        return Finding(Mark.MISSING, "disk", f"{existing} cannot be written", "name another folder with --home")
    if free < NEEDED_GIB:
        return Finding(Mark.MISSING, "disk", found, remedy)
    if free < ADVISED_GIB:
        return Finding(Mark.WARNING, "disk", found, f"checkpoints of a BERT-Large take 4 GB each: {remedy}")
    return Finding(Mark.GOOD, "disk", found)


def shared_memory() -> Finding:
    """Check /dev/shm, through which the processes of one machine exchange tensors."""
    path = "/dev/shm"  # noqa: S108 -- the place itself is looked at, nothing is written
    if not Path(path).exists():
        return Finding(Mark.WARNING, path, "absent", "Ray falls back to the disk, slowly")
    free = shutil.disk_usage(path).free / 2**30
    if free < 1:
        return Finding(Mark.WARNING, path, f"{free:.2f} GiB free", "in Docker: --shm-size=4g")
    return Finding(Mark.GOOD, path, f"{free:,.1f} GiB free")


def chromium() -> Finding:
    """Look for the browser that the tests drive."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if path is None:
        remedy = "only the tests need it (Debian: apt-get install chromium)"
        return Finding(Mark.WARNING, "Chromium", "not found", remedy)
    return Finding(Mark.GOOD, "Chromium", path)


def _python(program: str) -> subprocess.CompletedProcess[str]:
    # -P: a folder named optim or torch where the user stands is not the package.
    return subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)


def _reason(failed: subprocess.CompletedProcess[str]) -> str:
    return (failed.stderr.strip().splitlines() or ["no message"])[-1]


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
