"""Histories of a job, pooled to what a screen can show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, Select, func, select

from server.errors import ParameterError

from .database import Database
from .schema import records

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
)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Series over buckets of steps: `steps` is the last step of each, values are NaN where a bucket has none."""

    steps: NDArray[np.int64]
    minimum: dict[str, NDArray[np.float64]]
    maximum: dict[str, NDArray[np.float64]]
    last: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Newest:
    """The last records of some kinds, in order; `last_seq` is the number of the last record of all kinds."""

    records: list[dict[str, Any]]
    last_seq: int


@dataclass(frozen=True, slots=True)
class TrustRatios:
    """The matrix of tensors by steps. Column k is step `first + (k + 1) * stride - 1`, but not behind `last`."""

    names: list[str]
    adapted: list[bool]
    first: int
    last: int
    stride: int
    values: NDArray[np.float32]
    """(tensors, columns); NaN where a step or a ratio is missing."""

    @property
    def steps(self) -> list[int]:
        """The step of each column."""
        return _columns(self.first, self.last, self.stride)


class Histories:
    """Reads series out of the records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def metrics(self, job_id: str, names: list[str], *, start: int, end: int | None, buckets: int) -> Metrics:
        """Read series of the steps from `start` to `end`, pooled to at most `buckets` points.

        Raises:
            ParameterError: a series is not known.
        """
        unknown = [name for name in names if name not in SERIES]
        if unknown:
            raise ParameterError(f"there is no series {', '.join(unknown)}; the series are {', '.join(SERIES)}")
        values = [records.c.data[name].as_float().label(name) for name in names]
        query = _within(select(records.c.step, *values), job_id, start, end).order_by(records.c.step)
        with self._database.read() as db:
            rows = db.execute(query).all()
        table = np.array([list(row) for row in rows], dtype=np.float64).reshape(len(rows), 1 + len(names))
        return _pool(table, names, buckets)

    def newest(self, job_id: str, kinds: Sequence[str], limit: int) -> Newest:
        """Read the last records of some kinds, and the number of the last record of any kind."""
        query = select(records.c.data).where(records.c.job_id == job_id, records.c.kind.in_(kinds))
        with self._database.read() as db:
            last = db.execute(select(func.max(records.c.seq)).where(records.c.job_id == job_id)).scalar() or 0
            found = db.execute(query.order_by(records.c.seq.desc()).limit(limit)).scalars().all()
        return Newest(list(reversed(found)), last)

    def trust_ratios(self, job_id: str, *, start: int, end: int | None, columns: int) -> TrustRatios:
        """Read the matrix of the steps from `start` to `end`, at most `columns` wide."""
        extent = _within(select(func.min(records.c.step), func.max(records.c.step)), job_id, start, end)
        named = select(records.c.data).where(records.c.job_id == job_id, records.c.kind == "tensors")
        with self._database.read() as db:
            first, last = db.execute(extent).one()
            tensors = db.execute(named.order_by(records.c.seq.desc()).limit(1)).scalar() or {"names": [], "adapted": []}
            if first is None:
                return TrustRatios(tensors["names"], tensors["adapted"], 0, -1, 1, _matrix([], [], tensors["names"]))
            stride = -(-(last - first + 1) // columns)
            steps = _columns(first, last, stride)
            wanted = _within(select(records.c.step, records.c.trust_ratios), job_id, first, last)
            aligned = (records.c.step - first + 1) % stride == 0
            rows = db.execute(wanted.where(aligned | (records.c.step == last))).all()
        return TrustRatios(
            tensors["names"], tensors["adapted"], first, last, stride, _matrix(rows, steps, tensors["names"])
        )


def _within(query: Select[Any], job_id: str, start: int, end: int | None) -> Select[Any]:
    query = query.where(records.c.job_id == job_id, records.c.step >= start)
    return query if end is None else query.where(records.c.step <= end)


def _columns(first: int, last: int, stride: int) -> list[int]:
    return [min(step, last) for step in range(first + stride - 1, last + stride, stride)]


def _matrix(rows: Iterable[Row[Any]], steps: list[int], names: list[str]) -> NDArray[np.float32]:
    values = np.full((len(names), len(steps)), np.nan, dtype=np.float32)
    column = {step: number for number, step in enumerate(steps)}
    for row in rows:
        found = np.frombuffer(row.trust_ratios, dtype="<f4")
        values[: len(found), column[row.step]] = found[: len(names)]
    return values


def _pool(table: NDArray[np.float64], names: list[str], buckets: int) -> Metrics:
    """Split the rows (step, value, …) into runs of equal length and take least, greatest and last of each."""
    size = max(1, -(-len(table) // buckets))
    starts = np.arange(0, len(table), size)
    ends = np.minimum(starts + size, len(table)) - 1
    minimum, maximum, last = {}, {}, {}
    for number, name in enumerate(names, start=1):
        values = table[:, number]
        # fmin and fmax pass over NaN
        minimum[name] = np.fmin.reduceat(values, starts) if len(starts) else values
        maximum[name] = np.fmax.reduceat(values, starts) if len(starts) else values
        last[name] = values[ends]
    return Metrics(table[ends, 0].astype(np.int64), minimum, maximum, last)
