"""One service for all faults, whose home and run folders are on small disks of their own."""

from collections.abc import Iterator

import pytest

from server.cluster.process import ClusterProcess
from tests.system.faults.disk import Disk
from tests.system.service import Service


@pytest.fixture(scope="package")
def home_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """The disk of the home: the database, and Ray's files."""
    with Disk(tmp_path_factory.mktemp("faults") / "home") as disk:
        yield disk


@pytest.fixture(scope="package")
def runs_disk(home_disk: Disk) -> Iterator[Disk]:
    """The disk of the run folders."""
    with Disk(home_disk.path / "runs") as disk:
        yield disk


@pytest.fixture(scope="package")
def service(home_disk: Disk, runs_disk: Disk) -> Iterator[Service]:
    """A served home with its cluster, of which nothing may be left at the end."""
    assert runs_disk.path.parent == home_disk.path
    service = Service(home_disk.path)
    try:
        yield service
        service.stop()
        assert ClusterProcess(service.settings.ray).processes() == []
    finally:
        service.process.kill()
        ClusterProcess(service.settings.ray).stop()
