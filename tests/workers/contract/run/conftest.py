"""Fixtures of tests that read and write run folders."""

from pathlib import Path

import pytest

from tests.workers.contract.run.journals import write
from workers.contract.run.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder whose journal has five lines."""
    folder = RunFolder(tmp_path)
    write(folder, "1", "2", "3", "4", "5")
    return folder
