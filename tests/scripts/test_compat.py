"""What scripts/compat runs and what it says of the rest, tried with pip and indexes of tiny wheels."""

import json
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the script, and with room for tests of its own."""
    for name in ("scripts", "build/compat", "tests/optim/kernels/cuda"):
        (tmp_path / "project" / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "compat", tmp_path / "project" / "scripts" / "compat")
    return tmp_path / "project"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


@pytest.fixture
def compat(project: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; pip knows one folder of wheels."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "PYTEST_"))]:
        monkeypatch.delenv(name)
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(wheels)), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("TORCH_INDEX", "")
    loader = SourceFileLoader("compat", str(project / "scripts" / "compat"))
    spec = spec_from_loader("compat", loader)
    assert spec
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compat", module)  # its dataclass looks for it there
    loader.exec_module(module)
    return module


def write_wheel(folder: Path, name: str, version: str, filling: bytes = b"") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/filling", filling)
        wheel.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


NUMPYS = (("numpy", "2.3.5"), ("numpy", "2.4.0"))

VERSIONS = """
import numpy, torch, triton

def test_versions(record_property):
    record_property("registers", 64)
    record_property("registers", 48)
    record_property("statistics", "not a number")
    assert (torch.__version__, triton.__version__, numpy.__version__) == ("2.9.1", "3.5.1", "2.3.5")
"""


def test_a_torch_is_tried_with_the_triton_that_its_cuda_build_asks_for_and_a_numpy_that_fits(
    compat: ModuleType, project: Path, wheels: Path
) -> None:
    for name, version in (("torch", "2.9.1"), ("triton", "3.5.1"), ("triton", "3.6.0"), *NUMPYS):
        write_wheel(wheels, name, version)
    (project / "tests" / "optim" / "test_these.py").write_text(VERSIONS)
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    row = compat.try_torch("2.9.1", [], named=False)
    assert (row.torch, row.triton, row.numpy, row.tests, row.lacks) == ("2.9.1", "3.5.1", "2.3.5", "tests/optim", "")
    assert (row.passed, row.failed, row.skipped, row.most) == (1, 0, 0, {"registers": 64})
    assert not (project / "build" / "compat" / "torch-2.9.1").exists()


def test_a_triton_is_tried_beside_the_torch_of_the_project_and_a_venv_whose_tests_fail_stays(
    compat: ModuleType, project: Path, wheels: Path
) -> None:
    write_wheel(wheels, "triton", "3.7.1")
    text = "def test_that_fails():\n    import triton\n    assert triton.__version__ != '3.7.1'\n"
    (project / "tests" / "optim" / "kernels" / "cuda" / "test_these.py").write_text(text)
    row = compat.try_triton("3.7.1")
    assert (row.torch, row.triton, row.numpy) == ("of .venv", "3.7.1", "of .venv")
    assert (row.tests, row.passed, row.failed) == ("tests/optim/kernels/cuda", 0, 1)
    assert (project / "build" / "compat" / "triton-3.7.1" / "bin" / "python").exists()


@pytest.mark.parametrize(("triton", "numpy"), [("3.6.0", "2.3.5"), ("3.7.0", ""), ("3.10.0", "")])
def test_a_triton_before_3_7_has_a_numpy_before_2_4(
    compat: ModuleType, project: Path, wheels: Path, triton: str, numpy: str
) -> None:
    for name, version in (("triton", triton), *NUMPYS):
        write_wheel(wheels, name, version)
    place = project / "build" / "compat" / f"triton-{triton}"
    assert compat.install(place, f"triton=={triton}") == ""
    assert compat.fit_numpy(place) == ""
    assert compat.version_of(place, "numpy") == numpy


def test_an_older_numpy_that_cannot_be_had_is_the_reason_why_a_triton_is_not_tried(
    compat: ModuleType, wheels: Path
) -> None:
    write_wheel(wheels, "triton", "3.6.0")
    reason = "pip: Could not find a version that satisfies the requirement numpy<2.4"
    assert compat.try_triton("3.6.0").lacks == reason


def test_a_release_that_was_named_and_cannot_be_had_is_an_error_that_says_why(
    compat: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compat.main(["2.10.0", "--json", str(tmp_path / "rows.json")]) == 1
    reason = "pip: Could not find a version that satisfies the requirement torch==2.10.0"
    assert capsys.readouterr().out.splitlines()[-1] == f"| 2.10.0 | 3.6.0 |  |  |  |  |  | not run: {reason} |"
    assert [row["lacks"] for row in json.loads((tmp_path / "rows.json").read_text())] == [reason]


def test_every_triton_is_tried_that_came_with_no_torch(compat: ModuleType) -> None:
    rows = [compat.Row("2.13.0", "3.7.1", "tests/optim", passed=9), compat.Row("2.14.1", "3.8.0", lacks="too large")]
    assert compat.left_over(rows) == ["3.5.1", "3.6.0", "3.8.0", "3.9.0"]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index on the network, with a torch of 1.2 MB."""
    (tmp_path / "index" / "torch").mkdir(parents=True)
    write_wheel(tmp_path / "index" / "torch", "torch", "2.9.1", filling=bytes(1_200_000))
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "index")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_large_download_is_refused_with_its_size_and_how_to_ask_for_it(
    compat: ModuleType, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    told = compat.why_not("torch==2.9.1", ["--index-url", index], limit_bytes=1_000_000)
    assert told == "1 MB to download: name it, make compat TORCH=2.9.1"
    assert compat.why_not("torch==2.9.1", ["--index-url", index], limit_bytes=2_000_000) == ""


def test_of_what_pip_says_a_limit_of_its_configuration_is_the_reason_and_else_its_first_error(
    compat: ModuleType,
) -> None:
    capped = (
        "ERROR: Cannot install torch==2.15.0 because these package versions have conflicting dependencies.\n"
        "\nThe conflict is caused by:\n    The user requested torch==2.15.0\n"
        "    The user requested (constraint) torch<=2.14.1\nERROR: ResolutionImpossible: for help visit a page\n"
    )
    assert compat.refusal(capped) == "pip: The user requested (constraint) torch<=2.14.1"
    absent = "ERROR: Could not find a version that satisfies it (from versions: 1.0, 2.0)\nERROR: No matching one\n"
    assert compat.refusal(absent) == "pip: Could not find a version that satisfies it"
    assert compat.refusal("Killed\nWARNING: a folder is ignored\n") == "pip: Killed"
    assert compat.refusal("WARNING: a folder is ignored\n") == "pip: it failed without a word"


def test_the_list_has_a_release_of_every_minor_version_that_optim_works_with(compat: ModuleType) -> None:
    assert [int(version.split(".")[1]) for version in compat.BRINGS] == list(range(9, 16))
    pins = (ROOT / "constraints.txt").read_text()
    pinned = next(version for version in compat.BRINGS if f"\ntorch=={version}\n" in pins)
    assert f"\ntriton=={compat.BRINGS[pinned]} ;" in pins
