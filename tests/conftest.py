"""Fixtures that more than one folder of tests uses, and the order in which several processes run the files."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cluster.local import LocalCluster
from server.errors import ClusterUnreachableError
from tests.serving import Served, serving

START_S = 240
# These take a minute or more each, the first one most: begun last, they would keep one core while the others rest.
LONGEST = ("system/test_whole_path.py", "server/test_reconciling.py", "server/cluster/test_local.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; pytest-xdist hands them out in this order."""
    folder = Path(__file__).parent
    last = len(LONGEST)
    ranks = {folder / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, last))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A real server whose cluster nobody can reach."""
    with serving(tmp_path / "home") as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A real local Ray cluster, ready to take jobs; one for the whole session."""
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


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty little stories of a few words."""
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    who, does = ("The cat", "A dog", "My aunt", "No one", "The sea"), ("sleeps", "runs home", "sees the moon", "waits")
    stories = [" ".join(f"{a} {b}." for a in who[i % 3 :] for b in does[: 2 + i % 3]) for i in range(40)]
    path.write_text("\n\n".join(stories))
    return path
