"""The Ray cluster of this machine: started when it is first needed, and asked over its Jobs API."""

import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from server.errors import ClusterUnreachableError
from server.jobs.resources import Node, Run

from .process import ClusterProcess, ClusterState
from .ray_jobs import RayJobs

START_S = 300.0
"""A cluster that was started and has not answered for so long is started again."""


class LocalCluster:
    """A Ray cluster on this machine. It outlives the server."""

    def __init__(self, folder: Path, num_cpus: int | None = None) -> None:
        self.process = ClusterProcess(folder, num_cpus)
        self._waited_for, self._waited_since = "", 0.0
        self._http = httpx.Client(timeout=10.0, trust_env=False)

    def ensure(self) -> None:
        """Start the cluster if it is not running.

        Raises:
            ClusterUnreachableError: it is not ready to take jobs, with the reason.
        """
        state = self.process.find()
        if state is None:
            self.process.start()
            raise ClusterUnreachableError("the local Ray cluster is being started")
        head = self._jobs_of(state)
        try:
            head.check("/api/version")
            if not state.was_ready:  # the agent comes up a little later than the Jobs API
                head.check(f"{state.agent}/api/local_raylet_healthz")
                self.process.mark_ready(state)
        except ClusterUnreachableError as error:
            raise self._give_up(state, error.detail) from error

    def nodes(self, submissions: Sequence[str]) -> Sequence[Node]:
        """Return the one node, and what these submissions and others hold of it."""
        return self._jobs().nodes(submissions)

    def run_of(self, submission_id: str) -> Run:
        """Return what the cluster knows of a submission."""
        return self._jobs().run_of(submission_id)

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        """Have the cluster run a command in a folder, once."""
        self._jobs().submit(submission_id, entrypoint, folder)

    def kill(self, submission_id: str) -> None:
        """Have the cluster end a submission."""
        self._jobs().kill(submission_id)

    def log_tail(self, submission_id: str) -> str:
        """Return the end of what the driver printed."""
        return self._jobs().log_tail(submission_id)

    def shutdown(self) -> None:
        """End the cluster."""
        self.process.stop()

    def close(self) -> None:
        """Close the connections and leave the cluster running."""
        self._http.close()

    def _jobs(self) -> RayJobs:
        state = self.process.find()
        if state is None:
            raise ClusterUnreachableError("the local Ray cluster is not running")
        return self._jobs_of(state)

    def _jobs_of(self, state: ClusterState) -> RayJobs:
        return RayJobs(self._http, state.dashboard, self.process.token)

    def _give_up(self, state: ClusterState, reason: str) -> ClusterUnreachableError:
        """End a cluster that never became ready in time; one that was ready once is only waited for."""
        if state.was_ready or self._waited_s(state) < START_S:
            return ClusterUnreachableError(f"the local Ray cluster is not ready yet: {reason}")
        tail = self.process.log_tail()
        self.process.stop()
        return ClusterUnreachableError(f"the local Ray cluster was not ready after {START_S:g} s: {reason}\n{tail}")

    def _waited_s(self, state: ClusterState) -> float:
        """Return for how many seconds this server has waited for this cluster."""
        if self._waited_for != state.started:
            self._waited_for, self._waited_since = state.started, time.monotonic()
        return time.monotonic() - self._waited_since
