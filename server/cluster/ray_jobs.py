"""A Ray cluster over the REST API of its head node: jobs, their logs, and what the nodes have.

The server need not load Ray, and the HTTP status tells a job that does not exist from a cluster that does not answer.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from server.errors import ClusterUnreachableError, SubmissionRefusedError
from server.jobs.resources import Resources, Run


class RayJobs:
    """The Jobs API of one head node. Every method may raise ClusterUnreachableError."""

    def __init__(self, http: httpx.Client, url: str, token: str | None) -> None:
        self._http, self._url = http, url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def check(self, url: str) -> None:
        """Ask for a URL of the cluster, absolute or below the head node's.

        Raises:
            ClusterUnreachableError: the answer is not a success.
        """
        answer = self._ask("GET", url)
        if not answer.is_success:
            raise ClusterUnreachableError(f"{answer.url} answers HTTP {answer.status_code}")

    def resources(self) -> Resources:
        """Return what all living nodes have together."""
        answer = self._ask("GET", "/api/v0/nodes?detail=true")
        nodes = answer.json()["data"]["result"]["result"] if answer.is_success else []
        alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
        if not alive:
            raise ClusterUnreachableError(f"the Ray cluster at {self._url} names no living node")
        return sum((Resources(node.get("CPU", 0), node.get("GPU", 0)) for node in alive), Resources())

    def run_of(self, submission_id: str) -> Run:
        """Return what the cluster knows of a submission."""
        answer = self._ask("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return Run.UNKNOWN
        if not answer.is_success:
            raise ClusterUnreachableError(
                f"Ray does not report the state of {submission_id}: HTTP {answer.status_code}"
            )
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

    def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        url = path if path.startswith("http") else f"{self._url}{path}"
        try:
            return self._http.request(method, url, headers=self._headers, **body)
        except httpx.TransportError as error:
            raise ClusterUnreachableError(f"the Ray cluster does not answer at {url}: {error}") from error
