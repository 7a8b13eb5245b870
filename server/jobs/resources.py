"""What the cluster says: what its nodes have, who holds it, and how a submission fares."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from workers.planning.size import Resources


class Run(StrEnum):
    """What the cluster says of a submission."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    UNCLEAR = "UNCLEAR"
    """The cluster answers, but not for this submission: nothing follows from that."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What the cluster says of one submission."""

    run: Run
    driver: str | None = None
    """How the cluster names its driver; None before that was started."""
    end: str = ""
    """How it ended, as the end of a sentence; empty while it has not."""
    exit_code: int | None = None
    """Of its driver; None while that has none, or where nobody knows it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of the cluster."""

    total: Resources
    held: Mapping[str, Resources] = field(default_factory=dict)
    """What the workers of each submission hold here; what others hold is under the empty name."""

    def free(self, without: Collection[str] = ()) -> Resources:
        """Return what nobody holds, or would hold if the submissions `without` had ended."""
        return self.total - sum((each for name, each in self.held.items() if name not in without), Resources())
