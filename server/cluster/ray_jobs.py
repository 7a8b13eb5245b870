"""A Ray cluster over the REST API of its head node: its jobs, and what the nodes have.

The server need not load Ray, and the HTTP status tells a job that does not exist from a cluster that does not answer.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from server.errors import ClusterUnreachableError, NoNodeError, SubmissionRefusedError
from server.jobs.resources import Node, Run, Submission
from workers.planning.size import Resources

from .endings import ending

_MOST = 10_000  # Ray answers no request for more
_OF_THE_ASKER = (
    httpx.codes.UNAUTHORIZED,
    httpx.codes.FORBIDDEN,
    httpx.codes.NOT_FOUND,
    httpx.codes.PROXY_AUTHENTICATION_REQUIRED,
    httpx.codes.REQUEST_TIMEOUT,
    httpx.codes.TOO_MANY_REQUESTS,
)
"""Client errors that say something of the token, the address or the time, and nothing of the submission."""


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

    def check_nodes(self) -> None:
        """Return if a node is alive: a head that answers is no proof of one.

        Raises:
            NoNodeError: none is.
        """
        self._living_nodes()

    def session(self) -> str:
        """Return the name that Ray gives to what its head node knows: one that is started anew has another one.

        A head node that keeps its submissions over a restart keeps the name, too.
        """
        answer = self._ask("GET", "/api/version")
        name = _field(answer, "session_name")
        if name is None:
            raise ClusterUnreachableError(f"{answer.url} does not say which session of Ray it is")
        return name

    def nodes(self, submissions: Mapping[str, Submission]) -> list[Node]:
        """Return the living nodes, and what the placement groups of these submissions and of others hold of them.

        What others hold without a placement group is not known here, nor is which nodes are to be taken away: such a
        node ends as soon as nothing runs there.
        """
        # In an order that stays, so that the nodes on which a waiting job is expected are the same ones at each look.
        nodes = sorted(self._living_nodes(), key=lambda node: str(node["node_id"]))
        holders = {submission.driver: name for name, submission in submissions.items()}
        held: dict[str, dict[str, Resources]] = {node["node_id"]: {} for node in nodes}
        for group in self._listed("placement_groups", "CREATED"):
            holder = holders.get(group["creator_job_id"], "")
            for bundle in group["bundles"]:
                on_node = held.get(bundle["node_id"], {})
                on_node[holder] = on_node.get(holder, Resources()) + _resources(bundle["unit_resources"])
        return [Node(_resources(node["resources_total"]), held[node["node_id"]]) for node in nodes]

    def submission(self, submission_id: str) -> Submission:
        """Return what the cluster knows of a submission."""
        answer = self._ask("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return Submission(Run.UNKNOWN, end="the cluster that ran it is gone, or has forgotten it.")
        if not answer.is_success:
            return Submission(Run.UNCLEAR)
        known = answer.json()
        if known["status"] in {Run.PENDING, Run.RUNNING}:
            return Submission(Run(known["status"]), known["job_id"])
        return Submission(Run.ENDED, known["job_id"], ending(known), known.get("driver_exit_code"))

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        """Have the cluster run a command in a folder. A submission that it knows already is left as it is.

        Raises:
            SubmissionRefusedError: the cluster will not, and would not the next time.
        """
        command = f"cd {shlex.quote(str(folder))} && exec {shlex.join(entrypoint)}"
        answer = self._ask("POST", "/api/jobs/", json={"submission_id": submission_id, "entrypoint": command})
        if answer.is_success or self.submission(submission_id).run not in {Run.UNKNOWN, Run.UNCLEAR}:
            return
        reason = answer.text.strip().splitlines()[-1] if answer.text.strip() else f"HTTP {answer.status_code}"
        if answer.is_client_error and answer.status_code not in _OF_THE_ASKER:
            raise SubmissionRefusedError(f"Ray refused {submission_id}: {reason}")
        raise ClusterUnreachableError(f"Ray could not take {submission_id}: {reason}")

    def kill(self, submission_id: str) -> None:
        """Have the cluster end a submission: SIGTERM, and SIGKILL three seconds later."""
        self._ask("POST", f"/api/jobs/{submission_id}/stop")

    def _living_nodes(self) -> list[dict[str, Any]]:
        nodes = self._listed("nodes", "ALIVE")
        if not nodes:
            raise NoNodeError(f"the Ray cluster at {self._url} answers, but none of its nodes is alive")
        return nodes

    def _listed(self, what: str, state: str) -> list[dict[str, Any]]:
        """Return everything of a kind that is in this state; Ray would list 100, the dead among them."""
        query = f"detail=true&limit={_MOST}&filter_keys=state&filter_predicates=%3D&filter_values={state}"
        answer = self._ask("GET", f"/api/v0/{what}?{query}")
        if not answer.is_success:
            raise ClusterUnreachableError(f"{self._url}/api/v0/{what} answers HTTP {answer.status_code}")
        try:
            listed: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
        except (ValueError, LookupError, TypeError):
            beginning = answer.text[:100]
            raise ClusterUnreachableError(f"{self._url} does not answer as a head of Ray does: {beginning}") from None
        return listed

    def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        url = path if path.startswith("http") else f"{self._url}{path}"
        try:
            return self._http.request(method, url, headers=self._headers, **body)
        except httpx.TransportError as error:
            where = url.partition("?")[0]
            raise ClusterUnreachableError(f"the Ray cluster does not answer at {where}: {error}") from error


def _field(answer: httpx.Response, name: str) -> str | None:
    """Return a text of an answer; None where that has none."""
    try:
        found = answer.json()[name] if answer.is_success else None
    except (ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) and found else None


def _resources(quantities: Mapping[str, float]) -> Resources:
    return Resources(quantities.get("CPU", 0), quantities.get("GPU", 0))
