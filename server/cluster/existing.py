"""A Ray cluster that somebody else has started: jobs run there, and it is never started or ended from here."""

import os
from pathlib import Path

import httpx

from .ray_jobs import RayJobs


def token_of_environment() -> str | None:
    """Return the token from where Ray itself looks for it: RAY_AUTH_TOKEN, or the file RAY_AUTH_TOKEN_PATH."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(path).read_text().strip() if path else None


class ExistingCluster(RayJobs):
    """The cluster whose head node answers at `url`, such as http://head:8265. Its nodes must see the server's home."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._client = httpx.Client(timeout=10.0, trust_env=False)
        super().__init__(self._client, url.rstrip("/"), token)

    def ensure(self, *, runs_are_heard: bool = False) -> None:  # noqa: ARG002 -- it is never restarted from here
        """Return if the cluster answers and a node is alive. Otherwise it is waited for: it is not ours to restart.

        Raises:
            ClusterUnreachableError: it is not so, with the reason.
        """
        self.check_nodes()

    def shutdown(self) -> None:
        """Leave the cluster as it is: others may use it."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
