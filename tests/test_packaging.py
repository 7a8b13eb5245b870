"""What somebody gets who installs the project without its extra: the optimizer, beside torch alone.

The environment is a real one, made without a network: torch and what torch requires are links to this Python's.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
# torch itself warns when it is imported where there is no NumPy; of all warnings only this one is not ours.
STRICT = ("-W", "error", "-W", "ignore:Failed to initialize NumPy:UserWarning")
GIVEN = """
from typing import NamedTuple
import torch

torch.manual_seed(0)
losses = []


class Output(NamedTuple):
    loss: torch.Tensor


class Model(torch.nn.Linear):
    def forward(self, inputs, targets):
        losses.append(torch.nn.functional.mse_loss(super().forward(inputs), targets))
        return Output(losses[-1])


model = Model(8, 4)
inputs = torch.randn(64, 8)
batches = [dict(inputs=inputs, targets=inputs[:, :4])] * 600
"""
SHARDED = """
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)))
"""
WANTED = """
import importlib.util
import json
import optim

found = [name for name in ("numpy", "transformers", "pydantic", "ray") if importlib.util.find_spec(name)]
print(json.dumps([losses[0].item(), losses[-1].item(), optim.backend("cpu").name, optim.__file__, found]))
"""


@dataclass(frozen=True)
class Bare:
    """A virtual environment that has torch, what torch requires, and bigbatch without its extra."""

    folder: Path

    @property
    def packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Not PYTHONPATH, which would bring in what is installed elsewhere. The cache of kernels stays the user's: its
        # key is the text of all sources, so what is found there was compiled from just these.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(self.folder / "bin" / program), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, env=environment, timeout=200
        )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    bare = Bare(tmp_path_factory.mktemp("bare"))
    venv.create(bare.folder, symlinks=True)
    for name in closure(Requirement("torch"), set()):
        link(distribution(name), bare.packages)
    install(copy_of_the_sources(tmp_path_factory.mktemp("sources")), bare.folder / "bin" / "python")
    return bare


def closure(wanted: Requirement, seen: set[str]) -> Iterator[str]:
    """Yield the distributions that a requirement brings here, itself first."""
    if str(wanted) in seen:
        return
    seen.add(str(wanted))
    yield wanted.name
    for requirement in map(Requirement, distribution(wanted.name).requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted.extras | {""}):
            requirement.marker = None
            yield from closure(requirement, seen)


def link(package: Distribution, folder: Path) -> None:
    for name in {path.parts[0] for path in package.files or ()} - {"..", "__pycache__"}:
        target = folder / name
        if not target.exists():  # some distributions share a folder
            target.symlink_to(Path(str(package.locate_file(name))))


def copy_of_the_sources(folder: Path) -> Path:
    """Copy what a wheel is built from, because building leaves files behind."""
    for name in ("optim", "workers", "server", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def install(sources: Path, python: Path) -> None:
    """Install as pip does, which refuses without an index if anything is required that is not there."""
    offline = ("--isolated", "--disable-pip-version-check", "--no-index", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *offline, str(sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def quick_start() -> str:
    text = (ROOT / "optim" / "README.md").read_text()
    return str(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0])


def test_without_the_extra_torch_is_all_that_is_required(bare: Bare) -> None:
    (metadata,) = bare.packages.glob("bigbatch-*.dist-info")
    requirements = [Requirement(text) for text in Distribution.at(metadata).requires or ()]
    required = {one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})}
    service = {one.name for one in requirements if one.marker and one.marker.evaluate({"extra": "service"})}
    assert required == {"torch"}
    assert {"numpy", "ray", "typer"} <= service


def test_the_quick_start_of_the_readme_is_a_loop_of_six_lines() -> None:
    loop = quick_start().rstrip("\n").split("\n\n")[-1].splitlines()
    assert loop[0].startswith("for ")
    assert len(loop) == 6


@pytest.mark.parametrize("placed", ["", SHARDED], ids=["plain", "FSDP2"])
def test_the_quick_start_of_the_readme_trains_beside_torch_alone(bare: Bare, placed: str) -> None:
    done = bare.run("python", *STRICT, "-c", GIVEN + placed + quick_start() + WANTED)
    assert done.returncode == 0, done.stderr
    *steps, last = done.stdout.splitlines()
    first_loss, last_loss, backend, file, found = json.loads(last)
    assert [int(step.split()[0]) for step in steps] == list(range(1, 601))
    assert last_loss < first_loss / 2
    assert backend == "fused"
    assert Path(file) == bare.packages / "optim" / "__init__.py"
    assert found == []


def test_types_and_the_sources_of_the_kernel_are_installed_too(bare: Bare) -> None:
    names = ["py.typed", *(str(path.relative_to(ROOT / "optim")) for path in ROOT.glob("optim/kernels/cpu/csrc/*"))]
    assert len(names) > 1
    assert [name for name in names if not (bare.packages / "optim" / name).is_file()] == []


def test_the_job_of_the_demo_is_installed_too(bare: Bare) -> None:
    assert (bare.packages / "configs" / "demo.yaml").read_text() == (ROOT / "configs" / "demo.yaml").read_text()


@pytest.mark.parametrize("arguments", [("--help",), ("train", "job.yaml"), ()])
def test_the_command_line_without_the_extra_says_how_to_get_it(bare: Bare, arguments: tuple[str, ...]) -> None:
    done = bare.run("bigbatch", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "typer" in done.stderr
    assert "torch" not in done.stderr
    assert "pip install 'bigbatch[service]'" in done.stderr
    assert "Traceback" not in done.stderr
