"""Where the programs of scripts/gpu-train run: packages from wheels, a home of their own. Needs Python alone."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "httpx": "httpx",
    "numpy": "numpy",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "rich": "rich",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "transformers": "transformers",
}
"""What training imports beside torch: names on the index, and names in Python. `make wheels` downloads these."""

MODELS = {"cuda": ("bert-base-uncased", "bert-large-uncased"), "cpu": ("bert-tiny",)}
"""What is measured on a device, one after the other."""


@dataclass(frozen=True)
class Place:
    """A folder to work in, and the environment of the programs that work there."""

    folder: Path
    environment: Mapping[str, str]
    device: str
    """`cuda` or `cpu`."""

    def start(self, *words: str, log: Path) -> "subprocess.Popen[bytes]":
        """Start `python -m WORDS`; what it prints is appended to a file."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", *words], cwd=ROOT, env=dict(self.environment), stdout=file, stderr=file
            )


def place(folder: Path, wheels: Path, device: str) -> Place:
    """Unpack the wheels into a new folder, and return the place whose programs find them."""
    packages = folder / "packages"
    packages.mkdir(parents=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    _describe_this_project(packages)
    before = os.environ.get("PYTHONPATH")
    paths = [str(ROOT), str(packages), *([before] if before else [])]
    changed = {
        "PYTHONPATH": os.pathsep.join(paths),
        "BIGBATCH_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    return Place(folder, os.environ | changed, device)


def lacking(wheels: Path, device: str) -> str | None:
    """Return why nothing can be measured here, or None. Only a GPU that is wanted is looked for."""
    if importlib.util.find_spec("torch") is None:
        return f"{sys.executable} has no torch: install a CUDA build of it"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} finds no GPU: run this where nvidia-smi shows one, with a CUDA build of torch"
        )
    there = {wheel.name.partition("-")[0].lower() for wheel in wheels.glob("*.whl")}
    missing = [name for name, module in PACKAGES.items() if name not in there and not importlib.util.find_spec(module)]
    if missing:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (
            f"{sys.executable} has no {', '.join(missing)}, and no wheels of these are in {wheels}: run "
            f"`make wheels PYTHON_VERSION={version}` where there is a network, and copy the folder {wheels} here"
        )
    return None


def _describe_this_project(packages: Path) -> None:
    """Give the source tree the name and version that an installation has, unless it is installed."""
    try:
        distribution("bigbatch")
    except PackageNotFoundError:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        folder = packages / f"bigbatch-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bigbatch\nVersion: {version}\n")
