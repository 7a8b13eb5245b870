"""Histories of a job, pooled to what a screen can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Row, Select, except_, func, select

from server.errors import ParameterError
from workers.contract.records import TensorsRecord

from .database import Database
from .schema import EVALUATION, records

SERIES = (
    "loss",
    "mlm_loss",
    "nsp_loss",
    "mlm_accuracy",
    "lr",
    "grad_norm",
    "clip_coef",
    "tokens_per_s",
    "step_s",
    "trust_ratio_median",
    "trust_ratio_p10",
    "trust_ratio_p90",
)
EVALUATION_SERIES = {
    f"{EVALUATION}_{name}": name for name in ("mlm_loss", "mlm_accuracy", "perplexity", "nsp_accuracy")
}
"""Series of the records of evaluations, and the field that each one shows."""

Vector = Literal["trust_ratio", "weight_norm", "update_norm"]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Series over buckets of steps: `steps` is the last step of each, values are NaN where a bucket has none."""

    steps: NDArray[np.int64]
    minimum: dict[str, NDArray[np.float64]]
    maximum: dict[str, NDArray[np.float64]]
    last: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One number of every tensor at every step. N tensors, C columns."""

    names: list[str]
    """(N), those of all sets of tensors, in order of first appearance."""
    adapted: list[bool]
    sets: dict[str, list[int]]
    """For each set of tensors the rows of its names."""
    first: int
    stride: int
    """The first column stands for the steps from `first` to `first + stride - 1`, the next one for those after it."""
    steps: list[int]
    """(C), ascending: the step that each column shows, of its steps the last one that has numbers."""
    skipped: list[int]
    """All steps in the range that were skipped, and so have no numbers."""
    values: NDArray[np.float32]
    """(N, C), NaN where the step had no such tensor or the number was not finite."""


class Histories:
    """Reads series out of the records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def metrics(self, job_id: str, names: list[str], *, start: int, end: int | None, buckets: int) -> Metrics:
        """Read series of the steps from `start` to `end`, pooled to at most `buckets` points.

        Raises:
            ParameterError: a series is not known, or `end` is less than `start`.
        """
        known = (*SERIES, *EVALUATION_SERIES)
        if unknown := [name for name in names if name not in known]:
            raise ParameterError(f"there is no series {', '.join(unknown)}; the series are {', '.join(known)}")
        of_steps = [name for name in names if name in SERIES]
        of_evaluations = [name for name in names if name in EVALUATION_SERIES]
        values = [records.c.data[name].as_float().label(name) for name in of_steps]
        query = _steps(job_id, start, end, records.c.step, *values).order_by(records.c.step)
        with self._database.read() as db:
            rows = db.execute(query).all()
            judged = db.execute(_evaluations(job_id, of_evaluations)).all() if of_evaluations else []
        table = np.array([list(row) for row in rows], dtype=np.float64).reshape(len(rows), 1 + len(of_steps))
        return _pool(_joined(table, judged, len(of_evaluations)), [*of_steps, *of_evaluations], buckets)

    def matrix(self, job_id: str, what: Vector, *, start: int, end: int | None, columns: int) -> Matrix:
        """Read one number of every tensor at the steps from `start` to `end`, at most `columns` wide.

        Raises:
            ParameterError: `end` is less than `start`.
        """
        has_numbers = records.c.trust_ratio.is_not(None)
        with self._database.read() as db:
            sets = _sets(db, job_id)
            first, last = db.execute(
                _steps(job_id, start, end, func.min(records.c.step), func.max(records.c.step))
            ).one()
            if first is None:
                return _matrix(sets, [], [], 1, 1)
            stride = -(-(last - first + 1) // columns)
            newest = _steps(job_id, first, last, func.max(records.c.step)).where(has_numbers)
            shown = newest.group_by((records.c.step - first) // stride)
            found = _steps(job_id, first, last, records.c.step, records.c.tensor_set, records.c[what])
            rows = db.execute(found.where(records.c.step.in_(shown)).order_by(records.c.step)).all()
            # Both sides are read from an index alone.
            bare = except_(
                _steps(job_id, first, last, records.c.step),
                _steps(job_id, first, last, records.c.step).where(has_numbers),
            )
            skips = _steps(job_id, first, last, records.c.step).where(
                records.c.step.in_(bare), records.c.data["skipped"].as_boolean()
            )
            skipped = db.execute(skips.order_by(records.c.step)).scalars().all()
        return _matrix(sets, rows, skipped, first, stride)


def _steps(job_id: str, start: int, end: int | None, *columns: ColumnElement[Any]) -> Select[Any]:
    if end is not None and end < start:
        raise ParameterError(f"there are no steps from {start} to {end}: `from` must not be more than `to`")
    query = select(*columns).where(records.c.job_id == job_id, records.c.step >= start)
    return query if end is None else query.where(records.c.step <= end)


def _evaluations(job_id: str, names: Sequence[str]) -> Select[Any]:
    values = [records.c.data[EVALUATION_SERIES[name]].as_float().label(name) for name in names]
    query = select(records.c.data["step"].as_integer(), *values)
    return query.where(records.c.job_id == job_id, records.c.kind == EVALUATION)


def _joined(table: NDArray[np.float64], judged: Sequence[Row[Any]], width: int) -> NDArray[np.float64]:
    """Put the numbers of evaluations beside those of their steps, NaN beside the other steps."""
    place = {step: number for number, step in enumerate(table[:, 0])}
    beside = np.full((len(table), width), np.nan)
    for row in judged:
        if row[0] in place:
            beside[place[row[0]]] = row[1:]
    return np.hstack([table, beside])


def _sets(db: Connection, job_id: str) -> list[TensorsRecord]:
    query = select(records.c.data).where(records.c.job_id == job_id, records.c.kind == "tensors")
    return [TensorsRecord.model_validate(data) for data in db.execute(query.order_by(records.c.seq)).scalars()]


def _matrix(
    sets: Sequence[TensorsRecord], rows: Sequence[Row[Any]], skipped: Sequence[int], first: int, stride: int
) -> Matrix:
    adapted = {name: flag for each in sets for name, flag in zip(each.names, each.adapted, strict=True)}
    line = {name: number for number, name in enumerate(adapted)}
    lines = {each.set: [line[name] for name in each.names] for each in sets}
    # Where all steps of a column were skipped, it shows the last of them, empty.
    steps = {(step - first) // stride: step for step in skipped} | {
        (row.step - first) // stride: row.step for row in rows
    }
    column = {step: number for number, step in enumerate(sorted(steps.values()))}
    values = np.full((len(line), len(column)), np.nan, dtype=np.float32)
    for row in rows:
        packed = row[-1]
        if row.tensor_set is not None and packed is not None:  # older versions told neither the set nor the norms
            values[lines[row.tensor_set], column[row.step]] = np.frombuffer(packed, dtype="<f4")
    return Matrix(list(adapted), list(adapted.values()), lines, first, stride, list(column), list(skipped), values)


def _pool(table: NDArray[np.float64], names: list[str], buckets: int) -> Metrics:
    """Split the rows (step, value, …) into runs of equal length and take least, greatest and last of each.

    The last one of an evaluation is the last in its run: few steps have one.
    """
    size = max(1, -(-len(table) // buckets))
    starts = np.arange(0, len(table), size)
    ends = np.minimum(starts + size, len(table)) - 1
    minimum, maximum, last = {}, {}, {}
    for number, name in enumerate(names, start=1):
        values = table[:, number]
        # fmin and fmax pass over NaN
        minimum[name] = np.fmin.reduceat(values, starts) if len(starts) else values
        maximum[name] = np.fmax.reduceat(values, starts) if len(starts) else values
        last[name] = _last(values, starts, ends) if name in EVALUATION_SERIES else values[ends]
    return Metrics(table[ends, 0].astype(np.int64), minimum, maximum, last)


def _last(values: NDArray[np.float64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Take the last number of each run that is not NaN, NaN where there is none."""
    numbered = np.where(np.isnan(values), -1, np.arange(len(values)))
    at = np.maximum.reduceat(numbered, starts) if len(starts) else ends
    return np.where(at >= 0, values[at], np.nan)
