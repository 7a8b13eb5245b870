"""What the scheduler asks of a cluster."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from server.jobs.resources import Node, Submission


class Cluster(Protocol):
    """What the scheduler asks of a cluster. Every method may raise ClusterUnreachableError."""

    def ensure(self, *, runs_are_heard: bool) -> None:
        """Start the cluster if that is the server's task, and return once it can take jobs.

        Args:
            runs_are_heard: whether a run on it has said something lately, so that it lives even where it is silent.
        """

    def session(self) -> str:
        """Return the name of the cluster's session: another one means another cluster, which knows no submission."""

    def nodes(self, submissions: Mapping[str, Submission]) -> Sequence[Node]:
        """Return the nodes on which workers can be started, and what these submissions and others hold of them."""

    def submission(self, submission_id: str) -> Submission:
        """Return what the cluster knows of a submission."""

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        """Have the cluster run a command, once."""

    def kill(self, submission_id: str) -> None:
        """Have the cluster end a submission."""

    def shutdown(self) -> None:
        """End the cluster."""

    def close(self) -> None:
        """Close the connections and leave the cluster running."""
