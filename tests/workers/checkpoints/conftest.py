from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.small_job import document, four_steps
from tests.workers.training.running import train
from workers.contract.documents import parse_spec
from workers.contract.run.folder import RunFolder
from workers.ranks import process_group


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process alone."""
    with process_group(parse_spec(document(Path("unused")))):
        yield


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the text of `run` is prepared."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def run(home: Path, text: Path) -> RunFolder:
    """A run of four steps with checkpoints at 2 and 4, which has exported nothing."""
    folder, job = RunFolder(home / "run"), four_steps(text)
    folder.put_spec(parse_spec(job))
    train(job, folder.path, home)
    return folder
