"""A job that loses a node and gains one, on a cluster of two nodes: attempts of two workers, one, and two again.

The node that it gained is then announced to be taken away.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._private.node import Node
from ray._raylet import GcsClient  # type: ignore[attr-defined] # compiled
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from server.jobs import growth
from server.ports import free_ports
from tests.serving import Served, serving
from tests.system.service import wait_for
from tests.workers.small_job import PHASE, document
from tests.workers.training.running import records
from workers.contract.records import CheckpointRecord, RunStatus, StatusRecord, StepRecord

SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_raylet_start_wait_time_s": "240",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # How long an attempt waits for a node that is gone and that the head has not missed yet.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}


def node() -> dict[str, int]:
    """A node of one processor. Where its ports are given, it need not wait for its agents to name theirs."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    return {"num_cpus": 1, "object_store_memory": 100 * 2**20, **ports}


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, str]]:
    """A cluster of one node with one processor, and where its head answers."""
    folder = tempfile.mkdtemp(prefix="bb-", dir="/tmp")  # a path of a unix socket has at most 107 characters
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name, value in (SETTINGS | {"RAY_TMPDIR": folder}).items():
        monkeypatch.setenv(name, value)
    [port] = free_ports(1)
    cluster = Cluster(initialize_head=True, head_node_args=node() | {"include_dashboard": True, "dashboard_port": port})
    try:
        yield cluster, f"http://127.0.0.1:{port}"
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def elastic(text: Path) -> dict[str, Any]:
    """A job for one worker or two that would train for hours, and may lose one attempt without a new checkpoint."""
    phase = PHASE | {"global_batch_size": 16, "steps": 10**6, "lr": 1e-3}
    return document(
        text,
        name="elastic",
        phases=[phase],
        parallel={"workers": {"min": 1, "max": 2}},
        checkpoint={"every_steps": 20},
        failures={"max_restarts": 1},
        export={"at_end": False},
    )


def until(served: Served, job_id: str, workers: int, *, after: int, steps: int = 25) -> dict[str, Any]:
    """Wait until an attempt later than `after` has this many workers and has taken some steps.

    Before it there may be others that never trained: Ray believes for some seconds in a node that is gone.
    """

    def trains() -> bool:
        job = served.job(job_id)
        return job["attempt"] > after and job["world_size"] == workers and job["attempt_at"] is not None

    wait_for(trains, f"an attempt on {workers} workers")
    begun = served.job(job_id)["step"]
    wait_for(lambda: served.job(job_id)["step"] >= begun + steps, f"{steps} more steps")
    job = served.job(job_id)
    assert (job["world_size"], job["status"]) == (workers, "RUNNING"), job
    return job


def announce_the_end_of(node: Node, cluster: Cluster) -> None:
    """Tell Ray, as a cloud does, that a node will be taken away in five minutes."""
    deadline_ms = int((time.time() + 300) * 1000)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why_not = GcsClient(address=cluster.address).drain_node(node.node_id, reason, "taken away", deadline_ms)
    assert accepted, why_not


def ends_of(served: Served, job_id: str) -> dict[int, bool | None]:
    """The attempts that were interrupted, and whether each was a loss."""
    told = records(served.settings.run_folder(job_id))
    statuses = [record for record in told if isinstance(record, StatusRecord)]
    return {each.attempt: each.is_loss for each in statuses if each.status is RunStatus.INTERRUPTED}


@pytest.mark.timeout(600)  # three attempts, each of which starts on Ray
def test_a_job_goes_on_where_a_node_is_lost_and_where_one_is_gained_and_takes_each_step_once(
    ray_cluster: tuple[Cluster, str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, url = ray_cluster
    monkeypatch.setattr(growth, "GROWTH_AFTER", growth.GROWTH_AFTER * 0)
    monkeypatch.setattr(growth, "GROWTH_SAVES", growth.GROWTH_SAVES * 0)
    second = cluster.add_node(wait=False, **node())
    with serving(tmp_path / "home", ray_address=url) as served:
        job_id = served.submit(**elastic(text))["id"]
        first = until(served, job_id, 2, after=0)
        cluster.remove_node(second, allow_graceful=False)
        alone = until(served, job_id, 1, after=first["attempt"])
        assert alone["restarts"] == 0, "the attempt has a checkpoint of its own"
        third = cluster.add_node(wait=False, **node())
        grown = until(served, job_id, 2, after=alone["attempt"])
        announce_the_end_of(third, cluster)
        wait_for(lambda: grown["attempt"] in ends_of(served, job_id), "the end of the attempt on the third node")
        told = records(served.settings.run_folder(job_id))
        taken = [record.step for record in told if isinstance(record, StepRecord)]
        assert [record.step for record in told if isinstance(record, CheckpointRecord)][-1] == taken[-1]
        ends = ends_of(served, job_id)
        assert [attempt for attempt, is_loss in ends.items() if is_loss] == [first["attempt"]]
        assert ends.keys() >= {alone["attempt"], grown["attempt"]}
        served.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
        wait_for(lambda: served.job(job_id)["finished_at"] is not None, "the end of the job")
        job = served.job(job_id)
        assert (job["status"], job["restarts"]) == ("CANCELLED", 0)
        steps = served.parts.histories.metrics(job_id, ["loss"], start=1, end=None, buckets=10**6).steps
        assert steps.tolist() == list(range(1, job["step"] + 1))
