"""Lists of jobs, page by page: which jobs, in which order, and where the next page begins."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Select, and_, or_

from server.errors import ParameterError
from server.jobs.job import Job
from server.jobs.status import JobStatus
from workers.contract.problems import Problem

from .schema import jobs


class Sort(StrEnum):
    """The order of a list; a minus begins with the last."""

    NEWEST = "-created"
    OLDEST = "created"
    NAME = "name"
    NAME_BACKWARDS = "-name"
    OWNER = "owner"
    OWNER_BACKWARDS = "-owner"
    STATUS = "status"
    STATUS_BACKWARDS = "-status"
    LOWEST_PRIORITY = "priority"
    HIGHEST_PRIORITY = "-priority"

    @property
    def field(self) -> str:
        """The field of a job that decides; ids sort by time of creation."""
        name = self.removeprefix("-")
        return "id" if name == "created" else name

    @property
    def is_backwards(self) -> bool:
        """Whether the last comes first."""
        return self.startswith("-")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended. Jobs that are equal in the field of the sort follow in the order of their ids."""

    value: str | int
    id: str

    @classmethod
    def after(cls, job: Job, sort: Sort) -> "Cursor":
        """Return where the page ends whose last job this is."""
        return cls(getattr(job, sort.field), job.id)

    def text(self, sort: Sort) -> str:
        """Return what a client sends for the next page."""
        return base64.urlsafe_b64encode(json.dumps([sort, self.value, self.id]).encode()).decode()

    @classmethod
    def read(cls, text: str, sort: Sort) -> "Cursor":
        """Read what a client sends.

        Raises:
            ParameterError: it is no cursor, or one of a list in another order.
        """
        try:
            of, value, job_id = json.loads(base64.urlsafe_b64decode(text))
        except ValueError:
            raise _refusal(text, "is no cursor") from None
        is_usable = isinstance(value, int if sort.field == "priority" else str) and isinstance(job_id, str)
        if of != sort or not is_usable:
            raise _refusal(text, f"is not of a list sorted by {sort}")
        return cls(value, job_id)


def _refusal(text: str, problem: str) -> ParameterError:
    remedy = "send the next_cursor of the page before, with the same sort"
    wrong = Problem("query.cursor", repr(text), problem, remedy)
    return ParameterError(str(wrong), [wrong])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs are listed: those that meet every condition that is given."""

    statuses: Sequence[JobStatus] = ()
    """Any of these."""
    labels: Sequence[str] = ()
    """Each `key` or `key=value`, all of them."""
    name: str | None = None
    """A part of the name."""
    owner: str | None = None
    sweep: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions for the database."""
        found = [_has_label(label) for label in self.labels]
        if self.statuses:
            found.append(jobs.c.status.in_(self.statuses))
        if self.name is not None:
            found.append(jobs.c.name.contains(self.name, autoescape=True))
        if self.owner is not None:
            found.append(jobs.c.owner == self.owner)
        if self.sweep is not None:
            found.append(jobs.c.sweep == self.sweep)
        return found


EVERY_JOB = Wanted()


def _has_label(label: str) -> ColumnElement[bool]:
    key, has_value, value = label.partition("=")
    stored: ColumnElement[str] = jobs.c.labels[key].as_string()
    return stored == value if has_value else stored.is_not(None)


def sorted_after(query: Select[tuple[object, ...]], sort: Sort, cursor: Cursor | None) -> Select[tuple[object, ...]]:
    """Return the query with its order, from behind the cursor on."""
    field, job_id = jobs.c[sort.field], jobs.c.id
    if cursor is not None:
        follows = field < cursor.value if sort.is_backwards else field > cursor.value
        is_next = job_id < cursor.id if sort.is_backwards else job_id > cursor.id
        query = query.where(or_(follows, and_(field == cursor.value, is_next)))
    order = (field, job_id)
    return query.order_by(*(each.desc() for each in order) if sort.is_backwards else order)
