"""The REST API from Python: everything that the command line says to a server."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

from server.settings import default_home

from .connection import Connection
from .errors import JsonObject, NoSuchJobError, RefusedError, UnreachableError
from .events import Event, parse_events
from .results import (
    AdminToken,
    Checkpoints,
    Deed,
    DeedPage,
    Job,
    JobPage,
    MadeToken,
    Metrics,
    Plan,
    QueuePlace,
    StoredCheckpoint,
    Submitted,
    SweepJobs,
    Sweeps,
    SweepSummary,
    Token,
    TokenList,
)

PATIENCE = timedelta(minutes=5)
PAUSE_S = 1.0
T = TypeVar("T")


class Client:
    """A server, found by its home folder unless `url` and `token` are given.

    Args:
        home: the folder; by default the one that BIGBATCH_HOME names, or ~/.bigbatch.
        url: the address of another server, or a link that `bigbatch serve` printed.
        token: the token of that server.

    Every method that asks the server raises `UnreachableError` where none answers, and `RefusedError` where it refuses.
    """

    def __init__(self, home: Path | None = None, url: str | None = None, token: str | None = None) -> None:
        self._home, self._given = home or default_home(), (url, token)
        self._server = Connection(self._home, *self._given)

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._server.url

    @property
    def token(self) -> str:
        """The token that is sent; empty where there is none."""
        return self._server.token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def reconnect(self) -> None:
        """Look for the server again: it may have a new port or a new token by now."""
        self._server.close()
        self._server = Connection(self._home, *self._given)

    def link(self, path: str = "/") -> str:
        """Return an address of the dashboard with the token that lets a browser in; it is as secret as the token."""
        return f"{self.url}{path}?token={self.token}"

    def answers(self, path: str) -> bool:
        """Whether a bigbatch server says yes: `/healthz` asks if it runs, `/readyz` if it can start jobs."""
        try:
            return self._server.ask(dict, "GET", path) == {"status": "ok"}
        except (UnreachableError, RefusedError):
            return False

    def submit(self, document: JsonObject) -> Submitted:
        """Submit a job exactly once, even if the first answer is lost."""
        return self._create(Submitted, "/v1/jobs", document)

    def plan(self, document: JsonObject) -> Plan:
        """Have a job checked as if it were submitted, and return its plan."""
        return self._server.ask(Plan, "POST", "/v1/jobs", params={"dry_run": True}, json=document)

    def clone(self, prefix: str, from_step: int | None = None, changes: JsonObject | None = None) -> Submitted:
        """Submit a job again, exactly once, with other settings; with `from_step`, it goes on from that checkpoint."""
        body = {"from_step": from_step, "set": changes or {}}
        return self._create(Submitted, f"/v1/jobs/{self.job(prefix)['id']}/clone", body)

    def _create(self, shape: type[T], path: str, body: JsonObject) -> T:
        headers = {"Idempotency-Key": uuid4().hex}
        try:
            return self._server.ask(shape, "POST", path, json=body, headers=headers)
        except UnreachableError:
            return self._server.ask(shape, "POST", path, json=body, headers=headers)

    def submit_sweep(self, document: JsonObject) -> SweepJobs:
        """Submit a job in many variants ({job, grid} or {job, list}), each exactly once; return {id, jobs}."""
        return self._create(SweepJobs, "/v1/sweeps", document)

    def sweeps(self) -> list[SweepSummary]:
        """Return all sweeps, the newest first, each with how many of its jobs are in which status."""
        return self._server.ask(Sweeps, "GET", "/v1/sweeps")["sweeps"]

    def sweep(self, sweep_id: str) -> SweepJobs:
        """Return the jobs of a sweep: {id, jobs}."""
        return self._server.ask(SweepJobs, "GET", f"/v1/sweeps/{quote(sweep_id, safe='')}")

    def jobs(
        self,
        status: str | None = None,
        limit: int | None = None,
        page: int = 100,
        *,
        labels: Sequence[str] = (),
        name: str | None = None,
        owner: str | None = None,
        sort: str = "-created",
    ) -> Iterator[Job]:
        """Yield jobs, in pages of so many.

        Args:
            status: only jobs of this status.
            limit: at most so many.
            page: so many are asked for at a time.
            labels: only jobs with all of these, each `key` or `key=value`.
            name: only jobs with this text in their names.
            owner: only jobs that this owner submitted.
            sort: created, name, owner, status or priority; with a minus before it, the last one comes first.
        """
        conditions = {"status": status, "name": name, "owner": owner, "label": list(labels) or None}
        query = {"limit": min(limit or page, page), "sort": sort}
        return islice(self._pages(query | {key: value for key, value in conditions.items() if value}), limit)

    def job(self, prefix: str) -> Job:
        """Return the job whose id is `prefix`, or begins with it and no other does.

        Raises:
            NoSuchJobError: no id begins with `prefix`, or several do.
        """
        if not prefix:
            raise NoSuchJobError("the id of the job is empty: `bigbatch jobs` lists the jobs")
        try:
            return self._server.ask(Job, "GET", f"/v1/jobs/{quote(prefix, safe='', errors='surrogateescape')}")
        except RefusedError as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
        ids = [job["id"] for job in self.jobs() if job["id"].startswith(prefix)]
        if len(ids) > 1:
            some = ", ".join(ids[:5]) + ", ..." * (len(ids) > 5)
            raise NoSuchJobError(f"{len(ids)} job ids begin with {prefix!r} ({some}): give more of the id")
        if not ids:
            raise NoSuchJobError(f"no job id begins with {prefix!r}: `bigbatch jobs` lists the jobs")
        return self._server.ask(Job, "GET", f"/v1/jobs/{ids[0]}")

    def pause(self, prefix: str) -> Job:
        """Ask that a job saves a checkpoint and gives its workers back."""
        return self._ask(prefix, "pause")

    def resume(self, prefix: str) -> Job:
        """Have a paused job go on from its newest checkpoint, when its turn comes."""
        return self._ask(prefix, "resume")

    def checkpoint(self, prefix: str) -> Job:
        """Ask a job that trains for a checkpoint; `checkpoint_step` names it once it is there."""
        return self._ask(prefix, "checkpoint")

    def cancel(self, prefix: str) -> Job:
        """Ask that a job stops; a running one saves a checkpoint first."""
        return self._ask(prefix, "cancel")

    def retry(self, prefix: str) -> Job:
        """Have a job that failed or was cancelled go on from its newest checkpoint, when its turn comes."""
        return self._ask(prefix, "retry")

    def queue(self, prefix: str) -> QueuePlace:
        """Return where a job stands in the queue: position, waiting, priority, reason, starts_in_s."""
        return self._server.ask(QueuePlace, "GET", f"/v1/jobs/{self.job(prefix)['id']}/queue")

    def checkpoints(self, prefix: str) -> list[StoredCheckpoint]:
        """Return the checkpoints of a job, the oldest first."""
        path = f"/v1/jobs/{self.job(prefix)['id']}/checkpoints"
        return self._server.ask(Checkpoints, "GET", path)["checkpoints"]

    def delete_checkpoint(self, prefix: str, step: int) -> list[StoredCheckpoint]:
        """Remove the checkpoint of a step; return those that are left."""
        path = f"/v1/jobs/{self.job(prefix)['id']}/checkpoints/{step}"
        return self._server.ask(Checkpoints, "DELETE", path)["checkpoints"]

    def amend(self, prefix: str, *, priority: int | None = None, labels: Mapping[str, str | None] | None = None) -> Job:
        """Change the priority of a job that waits, or labels of any; a label that is None is removed."""
        change = ({} if priority is None else {"priority": priority}) | {"labels": dict(labels or {})}
        return self._server.ask(Job, "PATCH", f"/v1/jobs/{self.job(prefix)['id']}", json=change)

    def delete(self, prefix: str) -> Job:
        """Delete a paused or ended job with its records and its run folder; return it as it was."""
        return self._server.ask(Job, "DELETE", f"/v1/jobs/{self.job(prefix)['id']}")

    def _ask(self, prefix: str, verb: str) -> Job:
        return self._server.ask(Job, "POST", f"/v1/jobs/{self.job(prefix)['id']}/{verb}")

    def tokens(self) -> list[Token]:
        """Return what is known of every token that was made and not revoked; only an admin may ask."""
        return self._server.ask(TokenList, "GET", "/v1/tokens")["tokens"]

    def create_token(self, owner: str, role: str, expires_in_days: int) -> MadeToken:
        """Make a token for somebody; the answer is the only place where it can be read."""
        wanted = {"owner": owner, "role": role, "expires_in_days": expires_in_days}
        return self._server.ask(MadeToken, "POST", "/v1/tokens", json=wanted)

    def revoke_token(self, token_id: str) -> None:
        """Have a token open nothing from now on."""
        self._server.send("DELETE", f"/v1/tokens/{quote(token_id, safe='')}")

    def rotate_admin_token(self) -> AdminToken:
        """Replace the token in the server's admin.token, and log out whoever used the old one."""
        return self._server.ask(AdminToken, "POST", "/v1/tokens/rotate-admin")

    def audit(self, job_id: str | None = None, limit: int = 100) -> list[Deed]:
        """Return the newest entries of the audit log, of one job or of all; only an admin may ask."""
        query = {"limit": limit} | ({"job_id": job_id} if job_id else {})
        return self._server.ask(DeedPage, "GET", "/v1/audit", params=query)["deeds"]

    @contextmanager
    def export(self, job_id: str) -> Iterator[Iterator[bytes]]:
        """Yield the pieces of the archive with a job's exported model.

        Raises:
            RefusedError: there is none.
            UnreachableError: the connection broke off, or there was none.
        """
        with self._server.stream(f"/v1/jobs/{job_id}/export") as answer:
            yield answer.iter_raw()

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Yield the job's events after record `after`, as they come, until the connection ends.

        Raises:
            UnreachableError: the connection broke off, or there was none.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._server.stream(f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            yield from parse_events(answer.iter_text())

    def logs(
        self,
        prefix: str,
        *,
        rank: int | None = None,
        attempt: int | None = None,
        lines: int = 200,
        follow: bool = False,
    ) -> Iterator[str]:
        """Yield what a process of a job printed, line by line.

        Args:
            prefix: the id of the job, or its beginning.
            rank: which worker; by default the driver, which prints what all workers print, after the name of each.
            attempt: which attempt; by default the newest one. 0 is the preparation of the job's text.
            lines: how many of the last lines.
            follow: go on with what is printed from now on, until the process has ended.

        Raises:
            RefusedError: there is no such log.
            UnreachableError: the connection broke off, or there was none.
        """
        wanted = {"rank": rank, "attempt": attempt, "lines": lines, "follow": follow}
        query = {name: value for name, value in wanted.items() if value is not None}
        path = f"/v1/jobs/{self.job(prefix)['id']}/logs"
        # A process may print nothing for hours.
        with self._server.stream(path, params=query, may_be_silent=True) as answer:
            yield from answer.iter_lines()

    def metrics(self, prefix: str, series: Sequence[str] = ("loss", "lr"), buckets: int = 1000) -> Metrics:
        """Return series of a job's steps in so many buckets: the steps, and of each series min, max and last."""
        query = {"series": ",".join(series), "buckets": buckets}
        return self._server.ask(Metrics, "GET", f"/v1/jobs/{self.job(prefix)['id']}/metrics", params=query)

    def follow(self, job_id: str, on_lost: Callable[[UnreachableError], None] = lambda _: None) -> Iterator[Event]:
        """Yield a job's events from its first to its last, over restarts of the server.

        Raises:
            UnreachableError: the server stayed away for longer than PATIENCE.
        """
        after, lost = 0, None
        while True:
            try:
                for event in self.events(job_id, after):
                    after, lost = event.id or after, None
                    yield event
                    if event.name == "end":
                        return
                error = UnreachableError(self.url, "it ended the stream")
            except UnreachableError as broken:
                error = broken
            if lost is None:
                lost = time.monotonic()
                on_lost(error)
            if time.monotonic() - lost > PATIENCE.total_seconds():
                raise error
            time.sleep(PAUSE_S)
            self.reconnect()

    def _pages(self, query: JsonObject) -> Iterator[Job]:
        while True:
            answer = self._server.ask(JobPage, "GET", "/v1/jobs", params=query)
            yield from answer["jobs"]
            if answer["next_cursor"] is None:
                return
            query["cursor"] = answer["next_cursor"]
