"""Fixtures of the storage's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.storage.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "test.db")
    yield house
    house.database.close()
