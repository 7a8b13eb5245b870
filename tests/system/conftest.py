"""One server with a certificate, and one cluster, for all tests of this folder that train on it."""

from collections.abc import Iterator

import pytest

from server.cluster.process import ClusterProcess
from tests.certificates import make_certificate
from tests.system.service import Service


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A served home with its cluster, of which nothing may be left at the end. Runs, tests and browser use TLS."""
    folder = tmp_path_factory.mktemp("whole-path")
    certificate, key = make_certificate(folder)
    service = Service(folder / "home", tls_cert=certificate, tls_key=key)
    try:
        yield service
        service.stop()
        assert ClusterProcess(service.settings.ray).processes() == []
    finally:
        service.process.kill()
        ClusterProcess(service.settings.ray).stop()
