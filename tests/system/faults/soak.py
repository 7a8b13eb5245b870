"""Many small jobs, and random kills: `make soak`. None may be lost, run twice, or be ended by mistake.

It goes on where it stopped: home and tally are kept in a folder. Example:

    python -m tests.system.faults.soak --jobs 200 --minutes 60
"""

import argparse
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from server.cluster.local import LocalCluster
from server.cluster.process import ClusterProcess
from tests.system.faults.inspection import problems
from tests.system.faults.parts import of_attempt, processes
from tests.system.faults.tally import Subject, Tally
from tests.system.service import Service
from tests.workers.small_job import document, stories

STEPS = 5
AT_ONCE = 3
STANDSTILL_S = 900.0
RAYLET_EVERY_S = 900.0
"""A new cluster takes a minute or two, in which nothing else can be killed."""
PHASE = {"seq_len": 32, "global_batch_size": 128, "micro_batch_size": 2, "steps": STEPS, "lr": 5e-3, "warmup": 0.5}
KINDS = {"worker": 5, "driver": 4, "controller": 4, "supervisor": 4, "server": 5, "raylet": 2}
"""What is killed, and how often in comparison."""


@dataclass(frozen=True)
class Kill:
    """What is to be killed while a job is on the cluster, and when."""

    what: str
    status: str
    """Of the job: STARTING or RUNNING."""
    delay_s: float


def plan(seed: int, number: int) -> tuple[bool, list[Kill]]:
    """Draw what happens to a job: whether the server is killed while it is submitted, and up to three kills later."""
    draw = random.Random(f"{seed}-{number}")
    kills = []
    for what in draw.choices(list(KINDS), weights=list(KINDS.values()), k=draw.choice((0, 0, 1, 1, 1, 2, 3))):
        status = draw.choice(("STARTING", "RUNNING"))
        kills.append(Kill(what, status, draw.uniform(0, 40 if status == "STARTING" else 3)))
    return draw.random() < 0.1, kills


class Watched:
    """A job, what is still to be done to it, and since when it is as it is."""

    def __init__(self, subject: Subject, kills: list[Kill]) -> None:
        self.subject, self.kills = subject, kills
        self.began_s = self.moved_s = time.monotonic()
        self._seen: object = None
        self._status_s: dict[tuple[str, int], float] = {}

    def look(self, job: dict[str, Any]) -> None:
        seen = (job["status"], job["attempt"], job["step"])
        if seen != self._seen:
            self._seen, self.moved_s = seen, time.monotonic()
        self._status_s.setdefault((job["status"], job["attempt"]), time.monotonic())

    def due(self, job: dict[str, Any]) -> Kill | None:
        """The next kill, if it is time for it: one for each attempt, but the server may be killed beside."""
        if not self.kills or (str(job["attempt"]) in self.subject.hit and self.kills[0].what != "server"):
            return None
        since = self._status_s.get((self.kills[0].status, job["attempt"]))
        is_due = since is not None and time.monotonic() - since >= self.kills[0].delay_s
        return self.kills[0] if is_due else None


class Soak:
    """One run of the soak."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self.tally = Tally.read(folder / "tally.json", seed)
        self.text = folder / "stories.txt"
        self.text.write_text(stories())
        self.is_over = False
        self.service = Service(folder / "home")
        self.cluster = LocalCluster(self.service.settings.ray)
        self.watched = [Watched(subject, []) for subject in self.tally.open]
        self._lost_cluster: str | None = None
        self._raylet_s = time.monotonic()

    def run(self, jobs: int, until_s: float) -> None:
        """Go on until so many jobs have ended in all runs together, or the time is over."""
        while not self.is_over and time.monotonic() < until_s and self.tally.jobs < jobs:
            for each in self.watched:
                if each.subject.id is None:  # the last run ended while it was submitted
                    self.submit(each.subject, is_server_killed=False)
            while len(self.watched) < min(AT_ONCE, jobs - self.tally.jobs):
                self.add()
            try:
                current = [(each, self.service.job(str(each.subject.id))) for each in self.watched]
            except httpx.TimeoutException as error:
                print(f"the server is slow: {error!r}", flush=True)
                continue
            self.note_lost_cluster([(each.subject, job) for each, job in current])
            for each, job in current:
                each.look(job)
                if job["finished_at"] is not None or time.monotonic() - each.moved_s > STANDSTILL_S:
                    self.end(each, job)
                elif (kill := each.due(job)) is not None and self.kill(kill, each.subject, current):
                    each.kills.remove(kill)
                    break  # what is known of the others may be old now
            time.sleep(0.25)

    def add(self) -> None:
        number = self.tally.jobs + len(self.tally.open) + 1
        is_server_killed, kills = plan(self.tally.seed, number)
        subject = Subject(number, f"soak-{self.tally.seed}-{number}")
        self.tally.open.append(subject)
        self.tally.save()
        self.submit(subject, is_server_killed=is_server_killed)
        self.watched.append(Watched(subject, kills))

    def submit(self, subject: Subject, *, is_server_killed: bool) -> None:
        """Submit a job with its key until there is an answer; have the server killed meanwhile, if that is wanted."""
        answers = list[str | None]()
        if is_server_killed:
            request = threading.Thread(target=lambda: answers.append(self.post(subject)))
            request.start()
            time.sleep(random.Random(subject.key).uniform(0, 0.2))
            self.service.process.kill()
            request.join()
            self.restart_server()
        answers += [self.post(subject), self.post(subject)]
        ids = set(answers) - {None}
        if len(ids) != 1:
            raise RuntimeError(f"{subject.key} was answered with {answers}")
        [subject.id] = ids
        self.tally.save()

    def post(self, subject: Subject) -> str | None:
        """Submit a job once; None where no answer came."""
        checkpoint, failures = {"every_steps": 2, "keep": 9}, {"max_restarts": 9}
        changes: dict[str, Any] = {"phases": [PHASE], "checkpoint": checkpoint, "failures": failures}
        spec = document(self.text, workers=1, name="soak", **changes | {"export": {"at_end": False}})
        headers = {"Content-Type": "application/yaml", "Idempotency-Key": subject.key}
        with suppress(httpx.TransportError):
            answer = self.service.http.post("/v1/jobs", content=yaml.safe_dump(spec), headers=headers)
            return str(answer.raise_for_status().json()["id"])
        return None

    def kill(self, kill: Kill, subject: Subject, current: list[tuple[Watched, dict[str, Any]]]) -> bool:
        """Kill something of a job's attempt; return whether that is done with."""
        if kill.what == "server":
            self.restart_server()
            return True
        if kill.what == "raylet":
            if time.monotonic() - self._raylet_s < RAYLET_EVERY_S or self._lost_cluster:
                return True
            return self.kill_raylet([(each.subject, job) for each, job in current])
        [attempt] = [job["attempt"] for each, job in current if each.subject is subject]
        found = of_attempt(self.cluster, str(subject.id), attempt, kill.what)
        if found:
            subject.add_hit(attempt, kill.what)
            self.tally.count_kill(kill.what)
            send_kill(found)
        return bool(found)

    def kill_raylet(self, current: list[tuple[Subject, dict[str, Any]]]) -> bool:
        state = self.cluster.process.find()
        found = processes(self.cluster.process, "raylet/raylet ")
        if state is None or not found:
            return False
        self._lost_cluster, self._raylet_s = state.started, time.monotonic()
        self.tally.count_kill("raylet")
        self.note_lost_cluster(current)
        send_kill(found)
        return True

    def note_lost_cluster(self, current: list[tuple[Subject, dict[str, Any]]]) -> None:
        """Until there is a new cluster, whatever is on the old one, or is given to it, is lost with it."""
        if self._lost_cluster is None:
            return
        for subject, job in current:
            if job["status"] in {"STARTING", "RUNNING"} and str(job["attempt"]) not in subject.hit:
                subject.add_hit(job["attempt"], "raylet")
        self.tally.save()
        state = self.cluster.process.find()
        if state is not None and state.started != self._lost_cluster and state.was_ready:
            self._lost_cluster = None

    def restart_server(self) -> None:
        self.tally.count_kill("server")
        self.service.kill()
        self.service.start()

    def end(self, each: Watched, job: dict[str, Any]) -> None:
        """Look at a job that has ended, or does not, and count it."""
        subject = each.subject
        if job["finished_at"] is None:
            found = [("lost", f"it is {job['status']} in attempt {job['attempt']} and does not move: {job}")]
        else:
            found = list(problems(self.service, subject, STEPS))
        for what, problem in found:
            setattr(self.tally, what, getattr(self.tally, what) + 1)
            self.tally.problems.append(f"{what}: {subject.id} ({subject.hit}): {problem}")
        self.tally.jobs += 1
        self.tally.attempts += job["attempt"]
        self.tally.open.remove(subject)
        self.tally.save()
        self.watched.remove(each)
        hit = ", ".join(f"attempt {attempt}: {' '.join(what)}" for attempt, what in subject.hit.items())
        said = "; ".join(problem for _, problem in found) or "each step once"
        lasted_s = time.monotonic() - each.began_s
        print(f"{self.tally.jobs:4} {subject.id} {job['status']} {lasted_s:4.0f} s, {said} [{hit}]", flush=True)

    def count_jobs(self) -> None:
        """Compare how many jobs the server has with how many were submitted."""
        with closing(sqlite3.connect(f"file:{self.service.settings.database}?mode=ro", uri=True)) as database:
            [(stored,)] = database.execute("SELECT count(*) FROM jobs")
        submitted = self.tally.jobs + sum(subject.id is not None for subject in self.tally.open)
        if stored != submitted:
            what = "lost" if stored < submitted else "doubled"
            setattr(self.tally, what, getattr(self.tally, what) + abs(stored - submitted))
            self.tally.problems.append(f"{what}: the server has {stored} jobs, and {submitted} were submitted")

    def close(self) -> None:
        """End everything that was started; what has not ended goes on in the next run."""
        try:
            if self.service.process.poll() is None:
                for each in self.watched:
                    with suppress(httpx.HTTPError):
                        job = self.service.job(str(each.subject.id))
                        each.subject.add_hit(job["attempt"], "end of the soak")
                self.tally.save()
                self.service.stop()
        finally:
            self.service.process.kill()
            self.cluster.shutdown()
            self.cluster.close()
        left = ClusterProcess(self.service.settings.ray).processes()
        print(f"{self.tally}; {len(left)} processes left", flush=True)
        for problem in self.tally.problems:
            print(f"  {problem}", flush=True)


def send_kill(found: list[psutil.Process]) -> None:
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


@contextmanager
def soaking(folder: Path, seed: int) -> Iterator[Soak]:
    soak = Soak(folder, seed)

    def end(*_: object) -> None:
        soak.is_over = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        yield soak
    except httpx.TransportError:
        if not soak.is_over:  # Ctrl-C ends the server, too
            raise
    finally:
        soak.close()


def main() -> int:
    """Soak; return 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="how many have to end, in all runs together")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so long")
    parser.add_argument("--folder", type=Path, default=Path("build/soak"), help="home, text and tally")
    parser.add_argument("--seed", type=int, default=1, help="of a new tally")
    given = parser.parse_args()
    until_s = time.monotonic() + 60 * given.minutes
    with soaking(given.folder, given.seed) as soak:
        soak.run(given.jobs, until_s)
        soak.count_jobs()
    return 1 if soak.tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
