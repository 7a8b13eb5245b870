"""Fixtures for commands that ask a server."""

import json
from pathlib import Path

import pytest

from tests.serving import TINY, Served


@pytest.fixture
def home(served: Served) -> list[str]:
    """The options that lead to a running server."""
    return ["--home", str(served.settings.home), "--url", served.url]


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("It is a truth universally acknowledged.\n")
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(TINY | {"data": {"corpus": ["text.txt"], "vocab": 100}}))
    return path


@pytest.fixture
def foreign_folder(tmp_path: Path) -> Path:
    """A folder with packages of the same names as ours and as those we need."""
    for name in ("server", "workers", "optim", "torch", "ray"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('imported the wrong {name}')\n")
    return tmp_path
