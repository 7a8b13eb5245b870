"""Who asks the server for something, and what a role allows."""

from dataclasses import dataclass
from enum import StrEnum

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""The HTTP methods that change nothing."""


class Role(StrEnum):
    """What the holder of a token may do."""

    ADMIN = "admin"
    """Everything, tokens included."""
    OPERATOR = "operator"
    """Read everything, and submit and change jobs."""
    READER = "reader"
    """Read."""
    JOB = "job"
    """Push the records of one job. Only a run has such a token."""

    def allows(self, method: str, *, of_administration: bool) -> bool:
        """Whether a request of this HTTP method is allowed; `of_administration` if it is about tokens or the audit."""
        match self:
            case Role.ADMIN:
                return True
            case Role.OPERATOR:
                return not of_administration
            case Role.READER:
                return method in READING and not of_administration
            case Role.JOB:
                return False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    name: str
    """The owner of the token; `admin` for that of the home folder, `job:ID` for that of a run."""
    role: Role


ADMIN = Caller("admin", Role.ADMIN)
