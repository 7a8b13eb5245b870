"""The one loop that compares the jobs in the database with the runs on the cluster and acts on what it decides."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from .cluster.protocol import Cluster
from .errors import ClusterUnreachableError, DatabaseError, SubmissionRefusedError, TransitionError
from .jobs import preparation
from .jobs.job import LEAST_GRACE, Job
from .jobs.order import DEFAULT_RULES, Rules
from .jobs.patience import Patience
from .jobs.queue import Action, Decision, Facts, decide, reasons
from .jobs.resources import Node, Run, Submission
from .jobs.status import JobStatus, TextState
from .logs import about
from .storage.jobs import Store
from .storage.runs import RunFolders

_PYTHON = (sys.executable, "-P", "-m")
_PROGRAM = (*_PYTHON, "workers.launch")
_PREPARATION = (*_PYTHON, "workers.prepare")
_TURN_S = 1.0
_ON_THE_CLUSTER = frozenset({Run.PENDING, Run.RUNNING, Run.UNCLEAR})
SILENT = timedelta(seconds=30)
"""An attempt that trains says something every two seconds; after so long without a word it is called unreachable."""
log = logging.getLogger(__name__)


class Scheduler:
    """Takes a turn each second, or at once when woken: reads the facts, decides, and carries the decisions out."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        folders: RunFolders,
        program: Sequence[str] = _PROGRAM,
        rules: Rules = DEFAULT_RULES,
        preparation: Sequence[str] = _PREPARATION,
    ) -> None:
        self._store, self._cluster, self._folders = store, cluster, folders
        self._program, self._preparation = program, preparation
        self.rules = rules
        self._woken = asyncio.Event()
        self._stopped = False
        self._patience, self._silence = Patience(), Patience()
        self._active: set[str] = set()
        self._leaving: set[str] = set()
        self._farewell = Patience()
        self._heard: set[str] = set()
        self._heard_at = float("-inf")
        self._decided: set[tuple[str, Action]] = set()
        self._failing: dict[str, str] = {}
        self.turned_s = time.monotonic()
        """When the last turn ended, by a clock that nobody can set; before the first one, when this was made."""
        self.obstacle: str | None = "the scheduler has not asked the cluster yet"
        """Why jobs cannot be started now; None when they can."""
        self.nodes: Sequence[Node] | None = None
        """The nodes of the cluster; None while they are not known."""

    def wake(self) -> None:
        """Take the next turn now."""
        self._woken.set()

    def hear(self, job_id: str) -> None:
        """Take note that the current attempt of a job has said something."""
        self._heard.add(job_id)
        self._heard_at = time.monotonic()

    def stop(self) -> None:
        """Take no further turn."""
        self._stopped = True
        self.wake()

    async def run(self) -> None:
        """Take turns until stopped; a turn that has begun is finished."""
        while not self._stopped:
            self._woken.clear()
            await asyncio.to_thread(self.turn)
            self.turned_s = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _TURN_S)

    def turn(self) -> None:
        """Compare jobs and cluster once, and act."""
        try:
            self._ensure()
            facts = self._facts()
            self.obstacle = None
            decisions = decide(facts)
            self._log_new(decisions)
            for decision in decisions:
                self._carry_out(decision, facts)
            self._tell_why(facts)
            self._failing.pop("", None)
        except ClusterUnreachableError as error:
            # Without an answer nothing is known of the runs, so nothing is done: none is taken for dead.
            if self.obstacle != error.detail:
                log.info("waiting for the cluster: %s", error.detail)
            self.obstacle, self.nodes = error.detail, None
            self._lose_sight()
        except DatabaseError:
            pass  # the database has logged why; nothing was done, and the next turn tries again
        except Exception as error:
            self.obstacle = f"a turn of the scheduler failed: {error!r}; the log of the server has more"
            if self._is_new_failure("", error):
                log.exception("a turn of the scheduler failed; it is tried again every second")

    def _ensure(self) -> None:
        is_heard = time.monotonic() - self._heard_at < SILENT.total_seconds()
        self._cluster.ensure(runs_are_heard=is_heard)

    def _facts(self) -> Facts:
        jobs = self._store.unfinished()
        active = [job for job in jobs if job.status.is_active]
        known = {job.id: self._cluster.submission(job.submission_id) for job in active}
        if self.nodes is None or any(job.status is JobStatus.QUEUED or job.may_grow for job in jobs):
            self.nodes = self._cluster.nodes({job.submission_id: known[job.id] for job in active})
        self._look_for(active, known)
        self._see_off(active)
        preparing = self._store.preparing()
        ending = [job.submission_id for job in active if job.is_ending]
        ending += [job.preparation_id for job in preparing if job.text_state is TextState.REFUSED]
        waited = self._patience.look(ending)
        starts = any(job.status in {JobStatus.QUEUED, JobStatus.STARTING} for job in jobs)
        session = self._cluster.session() if starts else None
        preparations = {job.id: self._cluster.submission(job.preparation_id) for job in preparing}
        now = datetime.now(UTC)
        return Facts(jobs, known, self.nodes, now, waited, self.rules, session, preparing, preparations)

    def _lose_sight(self) -> None:
        """Take note that nothing is known of any attempt. It is all that follows."""
        with contextlib.suppress(DatabaseError):
            for job in self._store.unfinished():
                if job.status.is_active and job.unreachable_since is None:
                    self._store.change(job.id, lambda job: job.unreachable(_now()))

    def _look_for(self, active: Sequence[Job], known: Mapping[str, Submission]) -> None:
        """Take note of the attempts for which the cluster does not answer, and of those that train and say nothing."""
        heard, self._heard = self._heard, set()
        training = [job for job in active if job.attempt_at is not None and known[job.id].run is Run.RUNNING]
        silent = self._silence.look(job.submission_id for job in training if job.id not in heard)
        for job in active:
            with about(job.id, job.attempt):
                self._look_for_one(job, known[job.id].run, silent.get(job.submission_id))

    def _look_for_one(self, job: Job, run: Run, waited: timedelta | None) -> None:
        is_lost = run is Run.UNCLEAR or (waited is not None and waited >= SILENT)
        if is_lost and job.unreachable_since is None:
            self._store.change(job.id, lambda job: job.unreachable(_now()))
            log.warning("the attempt is not heard of; it is waited for")
        elif job.unreachable_since is not None and run is not Run.UNKNOWN and not is_lost and waited is None:
            self._store.change(job.id, Job.reached)
            log.info("the attempt is there")

    def _see_off(self, active: Sequence[Job]) -> None:
        """End what is still there of an attempt long after its job has ended: it holds processors for nothing."""
        before, self._active = self._active, {job.submission_id for job in active}
        self._leaving = (self._leaving | before) - self._active  # kept where the cluster does not answer now
        self._leaving = {name for name in self._leaving if self._cluster.submission(name).run in _ON_THE_CLUSTER}
        for name, waited in self._farewell.look(self._leaving).items():
            if waited >= LEAST_GRACE:
                log.warning("%s is still on the cluster, though its job has ended: it is killed", name)
                self._cluster.kill(name)
                self._leaving.discard(name)

    def _carry_out(self, decision: Decision, facts: Facts) -> None:
        """Act, so that what fails for one job holds up no other."""
        with _about(decision):
            self._try(decision, facts)

    def _try(self, decision: Decision, facts: Facts) -> None:
        job = decision.job
        try:
            self._act(decision, facts)
        except DatabaseError:
            raise
        except TransitionError as error:
            log.info("the job changed meanwhile: %s", error.detail)
        except ClusterUnreachableError as error:
            self.obstacle = error.detail
            if self._is_new_failure(job.id, error):
                log.info("%s is tried again every second: %s", decision.action, error.detail)
        except Exception as error:
            if self._is_new_failure(job.id, error):
                log.exception("%s failed; it is tried again every second", decision.action)
        else:
            self._failing.pop(job.id, None)

    def _tell_why(self, facts: Facts) -> None:
        """Have each job that waits say why."""
        known = {job.id: job.queue_reason for job in facts.jobs}
        for job_id, reason in reasons(facts).items():
            if reason != known[job_id]:
                self._store.change(job_id, partial(Job.wait_because, reason=reason))

    def _act(self, decision: Decision, facts: Facts) -> None:
        job = decision.job
        match decision.action:
            case Action.ADMIT:
                size, session = decision.world_size, facts.session
                self._submit(self._store.change(job.id, lambda job: job.admit(size, _now(), session)))
            case Action.SUBMIT:
                self._submit(job)
            case Action.GROW:
                self._store.change(job.id, Job.make_way)
            case Action.KILL:
                self._cluster.kill(job.submission_id)
            case Action.REFUSE:
                self._fail(job, decision.reason)
            case Action.SETTLE:
                self._settle(job, decision.reason)
            case Action.PREPARE:
                self._prepare(self._store.change(job.id, preparation.begin))
            case Action.SUBMIT_TEXT:
                self._prepare(job)
            case Action.STOP_TEXT:
                self._cluster.kill(job.preparation_id)
            case Action.SETTLE_TEXT if decision.submission is not None:
                self._settle_text(job, decision.submission)

    def _log_new(self, decisions: Sequence[Decision]) -> None:
        """Log what was not decided in the turn before, too: some things are tried every second until they succeed."""
        for decision in decisions:
            if (decision.job.submission_id, decision.action) not in self._decided:
                with _about(decision):
                    log.info("%s %s", decision.action, decision.reason)
        self._decided = {(decision.job.submission_id, decision.action) for decision in decisions}

    def _is_new_failure(self, key: str, error: Exception) -> bool:
        """Tell whether a failure is another one than the last of its kind, and so worth a word in the log."""
        last, self._failing[key] = self._failing.get(key), repr(error)
        return last != repr(error)

    def _submit(self, job: Job) -> None:
        folder = self._folders.folder(job.id)
        workers = job.world_size or max(job.valid_spec.world_sizes())
        options = {"--attempt": job.attempt, "--workers": workers, "--data": self._folders.data}
        entrypoint = [*self._program, str(folder), *(str(part) for option in options.items() for part in option)]
        try:
            self._cluster.submit(job.submission_id, entrypoint, folder)
        except SubmissionRefusedError as error:
            self._fail(job, error.detail)
        except ClusterUnreachableError as error:
            reason = error.detail
            self._store.change(job.id, lambda job: job.unreachable(_now()).wait_because(reason))
            raise
        else:
            self._store.change(job.id, lambda job: job.wait_because(None))

    def _prepare(self, job: Job) -> None:
        folder, spread = self._folders.folder(job.id), ["--cluster"] if len(self.nodes or ()) > 1 else []
        entrypoint = [*self._preparation, str(folder), "--data", str(self._folders.data), *spread]
        try:
            self._cluster.submit(job.preparation_id, entrypoint, folder)
        except SubmissionRefusedError as error:
            self._fail(job, error.detail)

    def _settle(self, job: Job, end: str) -> None:
        """Read what an attempt that has ended wrote last, and end the job or have it wait for the next attempt."""
        self._folders.read_rest(job.id)
        silence = f"Attempt {job.attempt} ended without saying why: {end}"
        settled = self._store.change(job.id, lambda job: job.settle(_now(), silence))
        if settled.status is JobStatus.QUEUED:
            log.info("the attempt was interrupted: %s", settled.interruption)
            self.wake()

    def _settle_text(self, job: Job, submission: Submission) -> None:
        """Read what a preparation that has ended wrote last, and tell all jobs with the same text what became of it."""
        self._folders.read_rest(job.id)
        ended = self._store.get(job.id)
        settled = self._store.change(job.id, lambda job: preparation.settle(job, _now(), submission))
        log.info("its text is %s", settled.text_state)
        for other in self._store.unfinished():
            if other.text_key == job.text_key and other.text_state is TextState.UNPREPARED:
                self._store.change(other.id, lambda each: preparation.share(each, _now(), ended, settled))
        self.wake()

    def _fail(self, job: Job, error: str) -> None:
        self._store.change(job.id, lambda job: job.become(JobStatus.FAILED, _now(), error))


def _about(decision: Decision) -> contextlib.AbstractContextManager[None]:
    is_of_next = decision.action is Action.ADMIT
    return about(decision.job.id, decision.job.attempt + is_of_next)


def _now() -> datetime:
    return datetime.now(UTC)
