"""Compile csrc/ at first use, for the machine it runs on, into the user's cache folder."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "csrc"
# Compiled where it runs, it needs no dispatch between instruction sets. Without errno and traps square roots vectorise.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")


class UnavailableError(Exception):
    """The kernels cannot be had here; the message says why and what to do."""


def load() -> tuple[ctypes.CDLL, Path]:
    """Return the library and its file, compiled now or by an earlier process.

    Raises:
        UnavailableError: there is no compiler, it failed, or what it made cannot be loaded.
    """
    compiler = _compiler()
    try:
        # All macros: the compiler's version and the instruction sets that this machine has.
        target = _run([compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
        library = _folder() / f"lamb-{_key(compiler, target)}.so"
        if not library.exists():
            _compile(compiler, library)
        return ctypes.CDLL(str(library)), library
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        raise UnavailableError(f"its library could not be made or loaded: {error}") from error


def _compiler() -> str:
    names = [name for name in (os.environ.get("CXX"), "g++", "c++") if name]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise UnavailableError(f"no C++ compiler found (tried {', '.join(names)}); install one: apt-get install g++")
    return found


def _folder() -> Path:
    """Return the user's own folder; nobody else may put a library there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bigbatch" / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _key(compiler: str, target: str) -> str:
    sources = [path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir())]
    return hashlib.sha256("\0".join([*sources, *FLAGS, compiler, target, torch.__version__]).encode()).hexdigest()[:16]


def _compile(compiler: str, library: Path) -> None:
    """Write `library` whole or not at all, however many processes do it at once."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        compiled, linked = Path(folder) / "lamb.o", Path(folder) / "lamb.so"
        _run([compiler, *FLAGS, "-c", str(SOURCES / "lamb.cpp"), "-o", str(compiled)])
        # Linked without -fopenmp, so that OpenMP is the one that PyTorch has loaded, with its threads.
        _run([compiler, "-shared", str(compiled), "-o", str(linked)])
        linked.replace(library)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
