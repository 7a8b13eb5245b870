"""Fixtures that more than one folder of tests uses, and the order in which several processes run the files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.serving import Served, serving
from tests.workers.small_job import stories

os.environ["HF_HUB_OFFLINE"] = "1"  # read when its library is imported; no test downloads
# How long an example may take says more about the machine than about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# These share one server and its cluster, and wait for jobs.
ON_THE_SERVICE = (
    "system/test_whole_path.py",
    "system/test_whole_way.py",
    "system/test_preparation.py",
    "system/test_secrets.py",
)
# Begun last, one of these would keep one core busy for long while the others rest.
LONGEST = (
    "system/test_elastic.py",
    "server/static/test_job.py",
    "server/static/test_matrix.py",
    "server/static/test_jobs.py",
    "server/static/test_data.py",
    "server/static/test_look.py",
    "workers/test_interruption.py",
    "workers/test_train.py",
    "workers/training/test_narrow_moments.py",
    "benchmarks/test_optimizer.py",
    "benchmarks/test_programs.py",
    "optim/kernels/cuda/test_moments.py",
    "optim/kernels/cpu/test_build.py",
    "test_packaging.py",
)
# These ask for the fixture `cluster`: one process of tests takes them all, so that a Ray cluster is started once.
ON_THE_CLUSTER = ("server/test_scheduler.py", "server/cluster/test_local.py")
FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; pytest-xdist hands them out in this order."""
    strangers = {str(item.path) for item in items if "cluster" in getattr(item, "fixturenames", ())}
    strangers -= {str(FOLDER / name) for name in ON_THE_CLUSTER}
    if strangers:
        raise pytest.UsageError(f"add to ON_THE_CLUSTER in tests/conftest.py: {', '.join(sorted(strangers))}")
    order = [FOLDER / name for name in (*ON_THE_SERVICE, *ON_THE_CLUSTER, *LONGEST)]
    items.sort(key=lambda item: order.index(item.path) if item.path in order else len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole files, and those that share a cluster as if they were one."""
    from xdist.scheduler import LoadFileScheduling

    class OneCluster(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            for names in (ON_THE_SERVICE, ON_THE_CLUSTER):
                if file.endswith(tuple(f"tests/{name}" for name in names)):
                    return names[0]
            return file

    return OneCluster(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A real server whose cluster nobody can reach."""
    with serving(tmp_path / "home") as server:
        yield server


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty little stories of a few words."""
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    path.write_text(stories())
    return path
