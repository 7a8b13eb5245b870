"""Everything that can go wrong, a class each: the docstring is the title, `status` the HTTP status."""

from collections.abc import Sequence

from workers.contract.problems import Problem


class ServerError(Exception):
    """The server cannot do what was asked."""

    status = 500
    errors: Sequence[Problem] = ()
    retry_after_s: int | None = None
    """Where nothing was done and the same request may succeed later: how long to wait first."""

    def __init__(self, detail: str = "", errors: Sequence[Problem] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.errors = errors

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        return (type(self).__doc__ or "").splitlines()[0]


class MalformedError(ServerError):
    """The request cannot be read."""

    status = 400


class UnauthorizedError(ServerError):
    """A valid token is needed."""

    status = 401


class ForbiddenError(ServerError):
    """The token is valid, and its role does not allow this."""

    status = 403


class JobNotFoundError(ServerError):
    """There is no such job."""

    status = 404


class CheckpointNotFoundError(ServerError):
    """The job has no such checkpoint."""

    status = 404


class TokenNotFoundError(ServerError):
    """There is no such token."""

    status = 404


class SweepNotFoundError(ServerError):
    """There is no such sweep."""

    status = 404


class ExportNotFoundError(ServerError):
    """The job has no finished export."""

    status = 404


class LogNotFoundError(ServerError):
    """The job has no such log."""

    status = 404


class TransitionError(ServerError):
    """The job's status does not allow this."""

    status = 409


class FilesLeftError(ServerError):
    """Files could not be removed."""

    status = 500


class IdempotencyError(ServerError):
    """The Idempotency-Key was used before with another specification."""

    status = 409


class LateRequestError(ServerError):
    """The request did not arrive in time."""

    status = 408


class BodyTooLargeError(ServerError):
    """The body of the request is too large."""

    status = 413


class MediaTypeError(ServerError):
    """The body is of an unsupported media type."""

    status = 415


class ParameterError(ServerError):
    """A parameter of the request is not valid."""

    status = 422


class RecordError(ServerError):
    """A record of the run cannot be stored."""

    status = 422

    def __init__(self, seq: int, field: str, problem: str, remedy: str) -> None:
        self.seq = seq
        super().__init__(f"record {seq}: {problem}; {remedy}", [Problem(field, f"record {seq}", problem, remedy)])


class TooManyRequestsError(ServerError):
    """The caller sends too many requests."""

    status = 429
    retry_after_s = 1


class TooManyConnectionsError(ServerError):
    """The server has as many connections as it can serve."""

    status = 503
    retry_after_s = 5


class DatabaseError(ServerError):
    """The database cannot be used now."""

    status = 503
    retry_after_s = 5


class BackupError(ServerError):
    """The server's home cannot be backed up or restored like this."""

    status = 409


class TooManyStreamsError(ServerError):
    """The server has as many streams as it can have."""

    status = 503
    retry_after_s = 30


class NotReadyError(ServerError):
    """The server cannot start jobs now."""

    status = 503


class ClusterUnreachableError(ServerError):
    """The cluster does not answer; nothing is known of its jobs."""

    status = 503


class NoNodeError(ClusterUnreachableError):
    """The cluster answers, but none of its nodes is alive."""


class StoreUnreachableError(ServerError):
    """The store of checkpoints cannot be used."""

    status = 503


class SubmissionRefusedError(ServerError):
    """The cluster refuses the job."""

    status = 502
