"""One Ray cluster for the tests of this folder that need one."""

import time
from collections.abc import Iterator

import pytest

from server.cluster.local import LocalCluster
from server.errors import ClusterUnreachableError

START_S = 240


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A real local Ray cluster, ready to take jobs. It ends with the last of the tests that share it."""
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster") / "ray", num_cpus=2)
    try:
        wait_until_ready(cluster)
        yield cluster
    finally:
        cluster.shutdown()
        cluster.close()


def wait_until_ready(cluster: LocalCluster) -> None:
    """Wait until a cluster takes jobs; fail with its reason when it does not."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            cluster.ensure()
        except ClusterUnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
