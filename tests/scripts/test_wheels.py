"""What scripts/wheels collects, tried with pip and an index of tiny wheels on disk."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from benchmarks.card.place import PACKAGES, ROOT

SCRIPT = ROOT / "scripts" / "wheels"


def run(folder: Path) -> "subprocess.CompletedProcess[str]":
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "index"), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, str(SCRIPT), "3.12", "--out", str(folder / "wheels")]
    return subprocess.run(command, env=alone | offline, capture_output=True, text=True, check=False)


def index(folder: Path) -> dict[str, str]:
    """Write a tiny wheel for each package, in the version of constraints.txt and in an older one."""
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    (folder / "index").mkdir()
    for name in PACKAGES:
        for version in ("0.1", pins[name]):
            write_wheel(folder / "index", name, version)
    return {name: pins[name] for name in PACKAGES}


def write_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_the_versions_of_the_constraints_replace_what_the_folder_held(tmp_path: Path) -> None:
    pins = index(tmp_path)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "numpy-1.0-py3-none-any.whl").touch()
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    found = {path.name for path in (tmp_path / "wheels").iterdir()}
    assert found == {f"{name}-{version}-py3-none-any.whl" for name, version in pins.items()}
    assert done.stdout.startswith(f"{len(pins)} wheels for Python 3.12 in {tmp_path / 'wheels'}, ")


def test_the_folder_stays_as_it_was_where_a_package_is_not_to_be_had(tmp_path: Path) -> None:
    index(tmp_path)
    for wheel in (tmp_path / "index").glob("numpy-*"):
        wheel.unlink()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "old.whl").touch()
    done = run(tmp_path)
    assert done.returncode != 0
    assert "nothing was collected, see above" in done.stderr
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["old.whl"]
