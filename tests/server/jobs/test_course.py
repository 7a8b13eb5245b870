"""Jobs, the verbs and the queue against a cluster that does as it likes: what must hold after every event."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.errors import TransitionError
from server.jobs import preparation, verbs
from server.jobs.job import Job
from server.jobs.order import DEFAULT_RULES
from server.jobs.queue import Action, Decision, Facts, decide, reasons
from server.jobs.resources import Node, Run, Submission
from server.jobs.status import JobStatus, TextState
from tests.serving import TINY, status
from workers.contract.documents import parse_spec
from workers.contract.records import RECORD
from workers.planning.size import Resources

CPUS = 4
NOW = datetime(2026, 1, 1, tzinfo=UTC)
INDEX = st.integers(0, 99)


class Course(RuleBasedStateMachine):
    """A server, reduced to its decisions, and a cluster of one node."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.runs: dict[str, int] = {}  # the CPUs of each submission that is on the cluster
        self.begun: set[str] = set()
        self.known: set[str] = set()  # to the cluster as it is since its head was started last
        self.session = 0
        self.is_deaf = False
        self.texts: dict[str, str] = {}  # the text of each preparation that is on the cluster
        self.ends: dict[str, int] = {}  # the exit code of each that has ended
        self.prepared: set[str] = set()
        self.now = NOW

    def _put(self, job: Job) -> None:
        before = self.jobs[job.id].status
        assert job.status is before or before.may_become(job.status), f"{before} became {job.status}"
        self.jobs[job.id] = job

    def _pick(self, index: int) -> Job:
        return list(self.jobs.values())[index % len(self.jobs)]

    @rule(cpus=st.integers(1, CPUS), priority=st.integers(-3, 3), text=st.sampled_from([None, "a", "b", "c"]))
    def submit(self, cpus: int, priority: int, text: str | None) -> None:
        name = f"{len(self.jobs):03}"
        spec = parse_spec(TINY | {"parallel": {"workers": 1, "cpus_per_worker": cpus}})
        job = Job(id=name, name=name, total_steps=20, created_at=self.now, priority=priority, spec=spec)
        state = TextState.READY if text is None or text in self.prepared else TextState.UNPREPARED
        self.jobs[name] = replace(job, text_key=text, text_state=state)

    @precondition(lambda self: self.jobs)
    @rule(index=INDEX, verb=st.sampled_from(["pause", "resume", "cancel", "retry", "checkpoint"]))
    def ask(self, index: int, verb: str) -> None:
        job = self._pick(index)
        asked: Any = getattr(verbs, verb)
        with suppress(TransitionError):
            self._put(asked(job) if verb == "checkpoint" else asked(job, self.now))

    @precondition(lambda self: self.jobs)
    @rule(index=INDEX, said=st.sampled_from(["RUNNING", "PAUSED", "CANCELLED", "FAILED", "SUCCEEDED", "INTERRUPTED"]))
    def report(self, index: int, said: str) -> None:
        """A run says something, be it sensible or not, and be it thought to have ended."""
        job = self._pick(index)
        if job.submission_id in self.begun:
            after = job.after(RECORD.validate_python(status(1, said, attempt=job.attempt)))
            assert after == job or job.status not in {JobStatus.QUEUED, JobStatus.PAUSED}
            self._put(after)

    @precondition(lambda self: self.runs)
    @rule(index=INDEX)
    def end(self, index: int) -> None:
        """A submission ends, whatever it has said."""
        self.runs.pop(list(self.runs)[index % len(self.runs)])

    @rule()
    def lose_the_cluster(self) -> None:
        """A new head is started, which knows of no submission."""
        self.session += 1
        self.known.clear()
        self.runs.clear()
        self.texts.clear()
        self.ends.clear()

    @rule(is_deaf=st.booleans())
    def hear(self, is_deaf: bool) -> None:
        """Submissions do not arrive for a while."""
        self.is_deaf = is_deaf

    @precondition(lambda self: self.texts)
    @rule(index=INDEX, code=st.sampled_from([0, 1, -9]))
    def end_preparation(self, index: int, code: int) -> None:
        """A preparation ends: done, or with a text that is refused, or killed."""
        name = list(self.texts)[index % len(self.texts)]
        text, self.ends[name] = self.texts.pop(name), code
        job = self.jobs[name.partition("-")[0]]
        if code == 0:
            self.prepared.add(text)
        elif code == 1:
            self._put(job.after(RECORD.validate_python(status(1, "FAILED", attempt=0, error="no text"))))

    @precondition(lambda self: self.texts)
    @rule(index=INDEX)
    def refuse(self, index: int) -> None:
        """A preparation says that the text cannot be used, and has not ended yet."""
        job = self.jobs[list(self.texts)[index % len(self.texts)].partition("-")[0]]
        self._put(job.after(RECORD.validate_python(status(1, "FAILED", attempt=0, error="no text"))))

    @precondition(lambda self: self.texts)
    @rule(index=INDEX)
    def progress(self, index: int) -> None:
        """A preparation says how far it has come."""
        job = self.jobs[list(self.texts)[index % len(self.texts)].partition("-")[0]]
        told = {"seq": 1, "time": NOW.isoformat(), "kind": "log", "text": "text: tokenizing", "done": 0.5}
        self._put(job.after(RECORD.validate_python(told)))

    @rule(minutes=st.integers(0, 100))
    def pass_time(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def turn(self) -> None:
        facts = self._facts()
        decisions = decide(facts)
        for decision in decisions:
            self._carry_out(decision, self.jobs[decision.job.id])
        starting = {each.job.id for each in decisions if each.action is Action.ADMIT}
        waiting = {job.id for job in facts.jobs if job.status is JobStatus.QUEUED}
        assert waiting == starting | reasons(facts).keys(), "a job neither starts nor says why it waits"

    def _carry_out(self, decision: Decision, job: Job) -> None:
        match decision.action:
            case Action.ADMIT:
                assert job.text_key is None or job.text_key in self.prepared, "started before its text is prepared"
                self._put(job.admit(decision.world_size, self.now, str(self.session)))
                self._submit(self.jobs[job.id])
            case Action.SUBMIT:
                self._submit(job)
            case Action.SETTLE:
                self._put(job.settle(self.now, "unheard"))
            case Action.KILL:
                self.runs.pop(job.submission_id)
            case Action.PREPARE:
                self._put(preparation.begin(job))
                self._prepare(self.jobs[job.id])
            case Action.SUBMIT_TEXT:
                self._prepare(job)
            case Action.STOP_TEXT:
                self.ends[job.preparation_id] = -15
                self.texts.pop(job.preparation_id)
            case Action.SETTLE_TEXT if decision.submission is not None:
                self._put(settled := preparation.settle(job, self.now, decision.submission))
                for other in self.jobs.values():
                    if other.text_key == job.text_key:
                        self._put(preparation.share(other, self.now, job, settled))
            case _:
                raise AssertionError(decision)

    def _prepare(self, job: Job) -> None:
        assert job.text_key is not None, "nothing is to be prepared"
        assert job.preparation_id not in self.ends.keys() | self.texts.keys(), "prepared twice"
        assert job.text_key not in self.texts.values(), "two prepare the same text"
        if not self.is_deaf:
            self.texts[job.preparation_id] = job.text_key

    def _submit(self, job: Job) -> None:
        if self.is_deaf:
            return
        assert job.submission_id not in self.begun, "started twice"
        self.begun.add(job.submission_id)
        self.known.add(job.submission_id)
        self.runs[job.submission_id] = job.valid_spec.parallel.cpus_per_worker

    def _facts(self) -> Facts:
        unfinished = [job for job in self.jobs.values() if not job.status.is_terminal]
        active = [job for job in unfinished if job.status.is_active]
        known = {job.id: Submission(self._run_of(job.submission_id)) for job in active}
        held = {name: Resources(cpus) for name, cpus in self.runs.items()}
        waited = {job.submission_id: timedelta(days=1) for job in active if job.is_ending}
        preparing = [job for job in self.jobs.values() if job.text_state.is_on_cluster]
        preparations = {job.id: self._preparation(job.preparation_id) for job in preparing}
        nodes = [Node(Resources(CPUS), held)]
        session = str(self.session)
        return Facts(unfinished, known, nodes, self.now, waited, DEFAULT_RULES, session, preparing, preparations)

    def _preparation(self, name: str) -> Submission:
        if name in self.texts:
            return Submission(Run.RUNNING)
        return Submission(Run.ENDED, exit_code=self.ends[name]) if name in self.ends else Submission(Run.UNKNOWN)

    def _run_of(self, submission_id: str) -> Run:
        if submission_id in self.runs:
            return Run.RUNNING
        return Run.ENDED if submission_id in self.known else Run.UNKNOWN

    @invariant()
    def no_more_is_given_than_there_is(self) -> None:
        assert sum(self.runs.values()) <= CPUS

    def teardown(self) -> None:
        """Where nothing new comes, every job ends or stays paused: none is forgotten, and none starves."""
        self.is_deaf = False
        for _ in range(4 * len(self.jobs) + 4):
            self.turn()
            for job in self.jobs.values():
                if job.submission_id in self.runs:
                    self._put(job.after(RECORD.validate_python(status(1, "SUCCEEDED", attempt=job.attempt))))
            self.runs.clear()
            while self.texts:
                self.end_preparation(0, 0)
        assert not any(job.text_state.is_on_cluster for job in self.jobs.values()), "a preparation is forgotten"
        assert all(job.status.is_terminal or job.status is JobStatus.PAUSED for job in self.jobs.values())


Course.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestWhateverHappensNoJobIsLostStartedTwiceOrLeftWaiting = Course.TestCase
