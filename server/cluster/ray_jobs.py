"""A Ray cluster over the REST API of its head node: jobs, their logs, and what the nodes have.

The server need not load Ray, and the HTTP status tells a job that does not exist from a cluster that does not answer.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from server.errors import ClusterUnreachableError, SubmissionRefusedError
from server.jobs.resources import Node, Run
from workers.planning.size import Resources

_MOST = 10_000  # Ray answers no request for more


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

    def nodes(self, submissions: Sequence[str]) -> list[Node]:
        """Return the living nodes, and what the placement groups of these submissions and of others hold of them.

        What others hold without a placement group is not known here, nor is which nodes are to be taken away: such a
        node ends as soon as nothing runs there.
        """
        nodes = self._listed("nodes", "ALIVE")
        if not nodes:
            raise ClusterUnreachableError(f"the Ray cluster at {self._url} names no living node")
        holders = {self._ray_job_of(name): name for name in submissions}
        held: dict[str, dict[str, Resources]] = {node["node_id"]: {} for node in nodes}
        for group in self._listed("placement_groups", "CREATED"):
            holder = holders.get(group["creator_job_id"], "")
            for bundle in group["bundles"]:
                on_node = held.get(bundle["node_id"], {})
                on_node[holder] = on_node.get(holder, Resources()) + _resources(bundle["unit_resources"])
        return [Node(_resources(node["resources_total"]), held[node["node_id"]]) for node in nodes]

    def run_of(self, submission_id: str) -> Run:
        """Return what the cluster knows of a submission."""
        known = self._submission(submission_id)
        if known is None:
            return Run.UNKNOWN
        return Run(known["status"]) if known["status"] in {Run.PENDING, Run.RUNNING} else Run.ENDED

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

    def _submission(self, submission_id: str) -> dict[str, Any] | None:
        answer = self._ask("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            raise ClusterUnreachableError(
                f"Ray does not report the state of {submission_id}: HTTP {answer.status_code}"
            )
        known: dict[str, Any] = answer.json()
        return known

    def _ray_job_of(self, submission_id: str) -> str | None:
        """Return the number that Ray gave the driver of a submission; None where it has not begun."""
        return (self._submission(submission_id) or {}).get("job_id")

    def _listed(self, what: str, state: str) -> list[dict[str, Any]]:
        """Return everything of a kind that is in this state; Ray would list 100, the dead among them."""
        query = f"detail=true&limit={_MOST}&filter_keys=state&filter_predicates=%3D&filter_values={state}"
        answer = self._ask("GET", f"/api/v0/{what}?{query}")
        if not answer.is_success:
            raise ClusterUnreachableError(f"{answer.url} answers HTTP {answer.status_code}")
        listed: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
        return listed

    def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        url = path if path.startswith("http") else f"{self._url}{path}"
        try:
            return self._http.request(method, url, headers=self._headers, **body)
        except httpx.TransportError as error:
            raise ClusterUnreachableError(f"the Ray cluster does not answer at {url}: {error}") from error


def _resources(quantities: Mapping[str, float]) -> Resources:
    return Resources(quantities.get("CPU", 0), quantities.get("GPU", 0))
