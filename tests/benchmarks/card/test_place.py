import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from benchmarks.card.place import PACKAGES, ROOT, lacking, place

PYTHON = [sys.executable, "-S"]
"""A Python without any package beside its own library."""


def test_what_training_imports_is_what_the_wheels_bring() -> None:
    """Of what `service` in pyproject.toml asks for, that which the programs load on their way."""
    code = (
        "import sys, workers.train, workers.training.alone, workers.checkpoints.export, benchmarks.card.measure\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    optional = {"ray", "pyarrow", "fsspec", "fastapi", "uvicorn", "sqlalchemy", "alembic", "psutil", "typer"}
    loaded = set(done.stdout.split()) & (optional | set(PACKAGES.values()))
    assert loaded - {"fsspec", "psutil"} == set(PACKAGES.values())  # torch brings fsspec, and does without psutil


def test_a_python_without_packages_is_told_of_them_and_of_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("__version__ = '2.11.0'\n")
    (tmp_path / "numpy-2.4.6-py3-none-any.whl").touch()
    code = f"from benchmarks.card.place import *; print(lacking(Path({str(tmp_path)!r}), 'cpu'))"
    path = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run([*PYTHON, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert "has no httpx, pydantic, pyyaml, rich, safetensors, tokenizers, transformers, and no wheels" in done.stdout
    assert f"run `make wheels PYTHON_VERSION={sys.version_info.major}.{sys.version_info.minor}`" in done.stdout


def test_a_python_without_torch_is_told_so(tmp_path: Path) -> None:
    code = f"from benchmarks.card.place import *; print(lacking(Path({str(tmp_path)!r}), 'cpu'))"
    done = subprocess.run(
        [*PYTHON, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{sys.executable} has no torch: install a CUDA build of it\n"


def test_nothing_lacks_where_everything_is_installed(tmp_path: Path) -> None:
    assert lacking(tmp_path, "cpu") is None


def test_programs_of_a_place_find_the_wheels_and_this_project_with_its_version(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "parcel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("parcel.py", "CONTENT = 'a cat'\n")
    here = place(tmp_path / "place", wheels, "cpu")
    code = (
        "import os, parcel, workers\n"
        "print(parcel.CONTENT, workers.__path__[0], os.environ['BIGBATCH_HOME'], os.environ['HF_HUB_OFFLINE'])"
    )
    done = subprocess.run(
        [*PYTHON, "-c", code], env=dict(here.environment), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split(maxsplit=2)[2].split() == [str(ROOT / "workers"), str(tmp_path / "place" / "home"), "1"]


def test_the_source_tree_has_a_version_where_it_is_not_installed(tmp_path: Path) -> None:
    for file in ("pyproject.toml", "benchmarks/__init__.py", "benchmarks/card/__init__.py", "benchmarks/card/place.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    code = (
        "import sys\nfrom importlib.metadata import version\nfrom benchmarks.card.place import *\n"
        "here = place(ROOT / 'place', ROOT / 'none', 'cpu')\n"
        "sys.path.append(str(here.folder / 'packages'))\nprint(version('bigbatch'))"
    )
    done = subprocess.run(
        [*PYTHON, "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == "0.1.0\n"
