"""Which processes of a Ray cluster work for which attempt of a job, so that one of them can be killed."""

import psutil

from server.cluster.local import LocalCluster
from server.cluster.process import ClusterProcess
from server.errors import ClusterUnreachableError


def processes(cluster: ClusterProcess, words: str) -> list[psutil.Process]:
    """The living processes of the cluster with these words in their command line; those of a shell are none."""
    return [each for each in cluster.processes() if words in f"{_title(each)} " and _name(each) != "sh"]


def of_attempt(cluster: LocalCluster, job_id: str, attempt: int, part: str) -> list[psutil.Process]:
    """The driver, supervisor, controller or worker of an attempt; none where it has not been started, or is gone."""
    match part:
        case "driver":
            return drivers(cluster.process, job_id, attempt)
        case "supervisor":
            parents = [each.parent() for each in drivers(cluster.process, job_id, attempt)]
            return [each for each in parents if each is not None and "ray::JobSupervisor" in _title(each)]
        case "controller":
            return _actors(cluster, f"{job_id}-a{attempt}", "ray::TrainController")
        case "worker":
            return _actors(cluster, f"{job_id}-a{attempt}", "ray::RayTrainWorker")
    raise ValueError(part)


def drivers(cluster: ClusterProcess, job_id: str, attempt: int) -> list[psutil.Process]:
    """The driver of an attempt, if it lives."""
    ours = processes(cluster, "-m workers.launch ")
    return [each for each in ours if f"/{job_id} --attempt {attempt} " in _title(each)]


def _actors(cluster: LocalCluster, submission_id: str, words: str) -> list[psutil.Process]:
    """Find actors by the names of their logs, which say for which driver Ray has started a process."""
    try:
        driver = cluster.submission(submission_id).driver
    except ClusterUnreachableError:
        return []
    logs = cluster.process.temp_dir / "r/session_latest/logs"
    found = processes(cluster.process, words)
    return [each for each in found if driver and list(logs.glob(f"worker-*-{driver}-{each.pid}.out"))]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
