"""Ray Jobs on the local cluster.

Ray is spoken to over the documented REST API of its head node: the server need not load Ray, and tells "there is no
such job" from "nobody answers" by the HTTP status.
"""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from server.errors import ClusterUnreachableError, SubmissionRefusedError
from server.jobs.resources import Resources, Run

from .process import ClusterProcess, ClusterState

START_S = 300.0
"""A cluster that was started and has not answered for so long is started anew."""


class LocalCluster:
    """A Ray cluster on this machine, started when it is first needed. It outlives the server."""

    def __init__(self, folder: Path, num_cpus: int | None = None) -> None:
        self.process = ClusterProcess(folder, num_cpus)
        self._http = httpx.Client(timeout=10.0, trust_env=False)

    def ensure(self) -> None:
        """Start the cluster if its process is gone.

        Raises:
            ClusterUnreachableError: it is not ready to take jobs, with the reason.
        """
        state = self.process.find()
        if state is None:
            self.process.start()
            raise ClusterUnreachableError("the local Ray cluster is being started")
        try:
            self._expect_success(f"{state.dashboard}/api/version")
            if not state.was_ready:  # the agent comes up a little later than the Jobs API
                self._expect_success(f"{state.agent}/api/local_raylet_healthz")
                self.process.mark_ready(state)
        except ClusterUnreachableError as error:
            raise self._give_up(state, error.detail) from error

    def resources(self) -> Resources:
        """Return what the whole cluster has."""
        answer = self._ask("GET", "/api/v0/nodes?detail=true")
        nodes = answer.json()["data"]["result"]["result"] if answer.is_success else []
        alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
        if not alive:
            raise ClusterUnreachableError("the local Ray cluster does not say what it has")
        return sum((Resources(node.get("CPU", 0), node.get("GPU", 0)) for node in alive), Resources())

    def run_of(self, submission_id: str) -> Run:
        """Return what the cluster knows of a submission."""
        answer = self._ask("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return Run.UNKNOWN
        if not answer.is_success:
            raise ClusterUnreachableError(f"Ray does not say how {submission_id} is: HTTP {answer.status_code}")
        status = answer.json()["status"]
        return Run(status) if status in {Run.PENDING, Run.RUNNING} else Run.ENDED

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        """Have the cluster run a command in a folder. A submission that it knows already is left as it is.

        Raises:
            SubmissionRefusedError: the cluster will not, and would not the next time.
        """
        command = f"cd {shlex.quote(str(folder))} && exec {shlex.join(entrypoint)}"
        answer = self._ask("POST", "/api/jobs/", json={"submission_id": submission_id, "entrypoint": command})
        if answer.is_success or self.run_of(submission_id) is not Run.UNKNOWN:
            return
        reason = answer.text.strip().splitlines()[-1] if answer.text.strip() else f"HTTP {answer.status_code}"
        if answer.is_client_error:
            raise SubmissionRefusedError(f"Ray refused {submission_id}: {reason}")
        raise ClusterUnreachableError(f"Ray could not take {submission_id}: {reason}")

    def kill(self, submission_id: str) -> None:
        """Have the cluster end a submission: SIGTERM, and SIGKILL three seconds later."""
        self._ask("POST", f"/api/jobs/{submission_id}/stop")

    def log_tail(self, submission_id: str, characters: int = 4000) -> str:
        """Return the end of what the driver printed; empty where nothing is known of it."""
        answer = self._ask("GET", f"/api/jobs/{submission_id}/logs")
        logs: str = answer.json()["logs"] if answer.is_success else ""
        return (logs or "")[-characters:].strip()

    def shutdown(self) -> None:
        """End the cluster."""
        self.process.stop()

    def close(self) -> None:
        """Close the connections and leave the cluster running."""
        self._http.close()

    def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        state = self.process.find()
        if state is None:
            raise ClusterUnreachableError("the local Ray cluster is not running")
        url = path if path.startswith("http") else f"{state.dashboard}{path}"
        headers = {"Authorization": f"Bearer {self.process.token}"}
        try:
            return self._http.request(method, url, headers=headers, **body)
        except httpx.TransportError as error:
            raise ClusterUnreachableError(f"the local Ray cluster does not answer at {url}: {error}") from error

    def _expect_success(self, url: str) -> None:
        answer = self._ask("GET", url)
        if not answer.is_success:
            raise ClusterUnreachableError(f"{url} answers HTTP {answer.status_code}")

    def _give_up(self, state: ClusterState, reason: str) -> ClusterUnreachableError:
        """End a cluster that never became ready in time; one that was ready once is only waited for."""
        if state.was_ready or time.time() - state.create_time < START_S:
            return ClusterUnreachableError(f"the local Ray cluster is not ready yet: {reason}")
        tail = self.process.log_tail()
        self.process.stop()
        return ClusterUnreachableError(f"the local Ray cluster was not ready after {START_S:g} s: {reason}\n{tail}")
