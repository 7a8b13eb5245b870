from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.ranks import process_group


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process alone."""
    with process_group(parse_spec(document(Path("unused")))):
        yield
