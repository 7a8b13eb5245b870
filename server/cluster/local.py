"""The Ray cluster of this machine: started when it is first needed, and asked over its Jobs API."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import httpx

from server.errors import ClusterUnreachableError, NoNodeError
from server.jobs.patience import Patience
from server.jobs.resources import Node, Submission

from .process import ClusterProcess, ClusterState
from .ray_jobs import RayJobs

ANSWER_S = 10.0
"""How long a request to the cluster may take."""
SILENCE = timedelta(minutes=5)
"""A cluster that has not answered for so long, and of which no run is heard, is lost, and is started again."""
NO_NODE = timedelta(seconds=30)
"""So is one that has been ready and answers that it has no living node, of which Ray makes no new one."""
AGAIN = timedelta(seconds=10)
"""A cluster that ended before it was ready is started again so much later."""


class LocalCluster:
    """A Ray cluster on this machine. It outlives the server."""

    def __init__(self, folder: Path, num_cpus: int | None = None) -> None:
        self.process = ClusterProcess(folder, num_cpus)
        self._patience = Patience()
        self._http = httpx.Client(timeout=ANSWER_S, trust_env=False)

    def ensure(self, *, runs_are_heard: bool = False) -> None:
        """Start the cluster if it is not running.

        Args:
            runs_are_heard: the head may then be silent without end: a busy machine is no reason to end runs.

        Raises:
            ClusterUnreachableError: it is not ready to take jobs, with the reason.
        """
        state = self.process.find()
        if state is None:
            raise self._start()
        try:
            self._check(state)
        except NoNodeError as error:
            raise self._wait(state, error.detail, NO_NODE if state.was_ready else SILENCE) from error
        except ClusterUnreachableError as error:
            raise self._wait(state, error.detail, None if runs_are_heard else SILENCE) from error
        self._patience.look([])

    def session(self) -> str:
        """Return the name of the cluster's session."""
        return self._jobs().session()

    def nodes(self, submissions: Mapping[str, Submission]) -> Sequence[Node]:
        """Return the one node, and what these submissions and others hold of it."""
        return self._jobs().nodes(submissions)

    def submission(self, submission_id: str) -> Submission:
        """Return what the cluster knows of a submission."""
        return self._jobs().submission(submission_id)

    def submit(self, submission_id: str, entrypoint: Sequence[str], folder: Path) -> None:
        """Have the cluster run a command in a folder, once."""
        self._jobs().submit(submission_id, entrypoint, folder)

    def kill(self, submission_id: str) -> None:
        """Have the cluster end a submission."""
        self._jobs().kill(submission_id)

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

    def _start(self) -> ClusterUnreachableError:
        """Start a cluster, or wait with that; return what to say meanwhile."""
        before = self.process.ended()
        if before is None:
            if runs := self.process.runs_without_state():
                pids = " ".join(str(process.pid) for process in runs)
                return ClusterUnreachableError(
                    f"a Ray cluster of this home has runs, but {self.process.folder}/cluster.json, which says where "
                    f"it is, cannot be read: put the file back as it was, wait for the end of these runs, or end them "
                    f"with kill {pids}"
                )
            self.process.start()
            return ClusterUnreachableError("the local Ray cluster is being started")
        if before.was_ready or self._patience.look([before.started])[before.started] >= AGAIN:
            self.process.start()
            return ClusterUnreachableError("the local Ray cluster has ended by itself and is being started again")
        said = f"it said last:\n{self.process.log_tail()}"
        return ClusterUnreachableError(
            f"the local Ray cluster has ended before it was ready, and is tried again; {said}"
        )

    def _check(self, state: ClusterState) -> None:
        head = self._jobs_of(state)
        head.check_nodes()
        if not state.was_ready:  # the agent comes up a little later than the rest
            head.check(f"{state.agent}/api/local_raylet_healthz")
            self.process.mark_ready(state)

    def _wait(self, state: ClusterState, reason: str, limit: timedelta | None) -> ClusterUnreachableError:
        """Return what to say while the cluster is waited for. Once that has taken too long, end it: it is lost."""
        if suspended := self.process.suspended():
            pids = ", ".join(str(process.pid) for process in suspended)
            return ClusterUnreachableError(
                f"the local Ray cluster does not work while processes of it are stopped: {pids}; continue them with "
                f"kill -CONT, or end them"
            )
        waited = self._patience.look([state.started] if limit is not None else [])
        if limit is None or waited[state.started] < limit:
            return ClusterUnreachableError(f"the local Ray cluster is not ready: {reason}")
        said = "" if state.was_ready else f"; it said last:\n{self.process.log_tail()}"
        self.process.stop()
        lost = f"the local Ray cluster is lost and is started again: for {limit.total_seconds():g} s, {reason}"
        return ClusterUnreachableError(lost + said)
