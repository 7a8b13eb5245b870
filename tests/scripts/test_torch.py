"""Which PyTorch the set-up takes, tried with the script itself, pip, and an index of tiny wheels on disk."""

import os
import subprocess
import venv
import zipfile
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "torch"
# Nothing answers here, so an index on the network cannot be reached.
NOBODY = "http://127.0.0.1:9"


class Machine:
    """A folder with .venv and constraints.txt, an index of wheels, and a pip that knows of no other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        venv.create(folder / ".venv", symlinks=True)
        pip = distribution("pip")
        for name in {path.parts[0] for path in pip.files or ()} - {".."}:
            (self.packages / name).symlink_to(str(pip.locate_file(name)))
        (folder / "constraints.txt").write_text("torch==2.13.0\n")

    @property
    def packages(self) -> Path:
        return next((self.folder / ".venv").glob("lib/python*/site-packages"))

    def index(self, *versions: str) -> str:
        folder = self.folder / "index" / "torch"
        folder.mkdir(parents=True)
        for version in versions:
            write_wheel(folder / f"torch-{version}-py3-none-any.whl", version)
        links = (f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in folder.iterdir())
        (folder / "index.html").write_text("\n".join(links))
        return folder.parent.as_uri()

    def install(self, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TORCH_", "PYTHON"))}
        own |= {"PIP_CONFIG_FILE": os.devnull, "HTTPS_PROXY": NOBODY, "https_proxy": NOBODY}
        own["PATH"] = f"{self.bin}{os.pathsep}{own['PATH']}"
        return subprocess.run(
            [SCRIPT], cwd=self.folder, env=own | environment, capture_output=True, text=True, check=False, timeout=120
        )

    def has_driver(self, says: str) -> None:
        """Put an nvidia-smi that does this before any that the machine has."""
        command = self.bin / "nvidia-smi"
        command.write_text(f"#!/bin/sh\n{says}\n")
        command.chmod(0o755)

    def installed(self) -> list[str]:
        return [one.version for one in distributions(path=[str(self.packages)]) if one.name == "torch"]


def write_wheel(path: Path, version: str) -> None:
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        # It requires what this index does not have: only PyTorch itself is to come from there.
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\nRequires-Dist: sympy\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_index_that_is_named_gives_pytorch_alone_in_the_pinned_version(machine: Machine) -> None:
    done = machine.install(TORCH_INDEX=machine.index("2.12.0+cpu", "2.13.0", "2.13.0+cpu", "2.14.0+cpu"))
    assert (done.returncode, machine.installed()) == (0, ["2.13.0+cpu"]), done.stderr


def test_a_named_index_without_the_pinned_version_is_an_error(machine: Machine) -> None:
    done = machine.install(TORCH_INDEX=machine.index("2.12.0+cpu"))
    assert done.returncode != 0
    assert "torch==2.13.0" in done.stderr


def test_an_empty_name_leaves_pytorch_to_the_index_of_everything_else(machine: Machine) -> None:
    done = machine.install(TORCH_INDEX="")
    assert (done.returncode, done.stdout, done.stderr, machine.installed()) == (0, "", "", [])


def test_a_machine_with_a_driver_takes_the_build_of_pips_own_index(machine: Machine) -> None:
    machine.has_driver(says="echo 'GPU 0: NVIDIA H100'")
    done = machine.install()
    assert (done.returncode, done.stderr, machine.installed()) == (0, "", [])


def test_where_pytorchs_index_cannot_be_reached_it_says_that_the_other_build_is_large(machine: Machine) -> None:
    machine.has_driver(says="exit 9")  # as where there is none
    done = machine.install()
    assert (done.returncode, machine.installed()) == (0, [])
    assert "https://download.pytorch.org/whl/cpu" in done.stderr
    assert "3 GB to download and 6 GB on disk" in done.stderr
