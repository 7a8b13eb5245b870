"""What Prometheus reads of a server: jobs by status, the queue, what runs push, and how running jobs train."""

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.jobs.job import Job
from server.jobs.status import JobStatus
from server.scheduler import Scheduler
from server.storage.jobs import Store

from .bell import Bell

_LAG_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_OF_A_JOB = ("job", "name")


class Exposition(Collector):
    """The figures of one server. What the database knows is read when it is asked for; the rest is counted here."""

    def __init__(self, store: Store, scheduler: Scheduler, bell: Bell) -> None:
        self._store, self._scheduler, self._bell = store, scheduler, bell
        self._registry = CollectorRegistry()
        self._registry.register(self)
        lag = "Seconds from when the last record of a push was written until it was stored."
        self._lag = Histogram("bigbatch_ingest_lag_seconds", lag, buckets=_LAG_S, registry=self._registry)
        refused = "Pushes that were refused or could not be stored, by the HTTP status of the answer."
        self._refused = Counter("bigbatch_push_errors", refused, ["status"], registry=self._registry)

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        return generate_latest(self._registry)

    def count_push(self, written_at: datetime) -> None:
        """Count a push that was stored; `written_at` is the time of its last record."""
        self._lag.observe(max(0.0, (datetime.now(UTC) - written_at).total_seconds()))

    def count_refusal(self, status: int) -> None:
        """Count a push that was answered by an error."""
        self._refused.labels(status).inc()

    def collect(self) -> Iterable[Metric]:
        """Yield what is read from the database and from the parts of the server."""
        jobs = GaugeMetricFamily("bigbatch_jobs", "Jobs by status.", labels=["status"])
        counts = self._store.counts()
        for status in JobStatus:
            jobs.add_metric([status], counts.get(status, 0))
        yield jobs
        yield from _of_jobs(self._store.unfinished())
        yield _single("bigbatch_streams", "Open streams of events.", self._bell.streams)
        silence = "Seconds since the scheduler ended a turn."
        yield _single("bigbatch_scheduler_silence_seconds", silence, time.monotonic() - self._scheduler.turned_s)

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: registering must not read the database."""
        return ()


def _of_jobs(jobs: list[Job]) -> Iterator[Metric]:
    now = datetime.now(UTC)
    waits = [
        (now - job.created_at).total_seconds() for job in jobs if job.status is JobStatus.QUEUED and not job.attempt
    ]
    waited = "Seconds that the job which has waited longest for its first attempt has been waiting; 0 if none waits."
    yield _single("bigbatch_queue_wait_seconds", waited, max(waits, default=0.0))
    running = [job for job in jobs if job.status is JobStatus.RUNNING]
    for name, said, values in (
        ("bigbatch_job_step", "Steps that a running job has taken.", [job.step for job in running]),
        ("bigbatch_job_loss", "Loss of a running job at its last step, in nats.", [job.loss for job in running]),
        (
            "bigbatch_job_tokens_per_second",
            "Tokens a second of a running job at its last step.",
            [job.tokens_per_s for job in running],
        ),
    ):
        family = GaugeMetricFamily(name, said, labels=_OF_A_JOB)
        for job, value in zip(running, values, strict=True):
            if value is not None:
                family.add_metric([job.id, job.name], value)
        yield family


def _single(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(name, said, value=value)
