"""What is wrong with a job that has ended, by the server's answers, the database, the journal and the logs."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from server.cluster.process import ClusterProcess
from tests.system.faults.parts import drivers
from tests.system.faults.tally import Subject
from tests.system.service import Service, wait_for
from workers.contract.run.folder import RunFolder

Problem = tuple[str, str]
"""The field of the tally that counts it, and what it is."""


def problems(service: Service, subject: Subject, steps: int) -> Iterator[Problem]:
    """Look at a job that has ended; `hit` of the subject says which attempts were not left alone."""
    assert subject.id is not None
    job = service.job(subject.id)
    folder = RunFolder(service.settings.run_folder(subject.id))
    if job["status"] != "SUCCEEDED":
        yield "killed_by_mistake", f"it is {job['status']}: {job['error']}"
    for attempt in range(1, job["attempt"]):
        if str(attempt) not in subject.hit:
            yield "killed_by_mistake", f"attempt {attempt} ended, though nobody killed anything of it"
    cluster, last = ClusterProcess(service.settings.ray), job["attempt"]
    wait_for(lambda: not drivers(cluster, job["id"], last), "the driver's end: it may still have something to say")
    written = [json.loads(line) for line in folder.journal.read_text().splitlines()]
    yield from _of_steps(service, subject.id, written, steps)
    yield from _of_attempts(folder, written, job["attempt"])


def _of_steps(service: Service, job_id: str, written: list[dict[str, object]], steps: int) -> Iterator[Problem]:
    with closing(sqlite3.connect(f"file:{service.settings.database}?mode=ro", uri=True)) as database:
        query = "SELECT step FROM records WHERE job_id = ? AND kind = 'step' ORDER BY step"
        stored = [step for (step,) in database.execute(query, (job_id,))]
        [(acknowledged,)] = database.execute("SELECT acknowledged FROM jobs WHERE id = ?", (job_id,))
    every = list(range(1, steps + 1))
    ratios = service.http.get(f"/v1/jobs/{job_id}/trust-ratios?columns=4096").raise_for_status().json()["steps"]
    for where, found in (
        ("the database", stored),
        ("the metrics", service.metrics(job_id)["steps"]),
        ("ratios", ratios),
    ):
        if found != every:
            yield "doubled" if len(found) > len(set(found)) else "lost", f"{where}: steps {found}"
    if [each["seq"] for each in written] != list(range(1, len(written) + 1)):
        yield "lost", "the numbers of the journal have gaps or repeat"
    if acknowledged != len(written):
        yield "lost", f"{acknowledged} records of {len(written)} are stored"


def _of_attempts(folder: RunFolder, written: list[dict[str, object]], last: int) -> Iterator[Problem]:
    begun = Counter(each["attempt"] for each in written if each.get("status") == "RUNNING")
    for attempt in range(1, last + 1):
        if begun[attempt] > 1:
            yield "doubled", f"attempt {attempt} began to train {begun[attempt]} times"
        log = folder.log(attempt, 0)
        ranks = log.read_text().count("rank 0 of 1 begins: ") if log.exists() else 0
        if ranks > 1:
            yield "doubled", f"attempt {attempt} was started {ranks} times"
    if set(begun) - set(range(1, last + 1)):
        yield "doubled", f"attempts {sorted(map(str, begun))} trained, but the job counts {last}"
