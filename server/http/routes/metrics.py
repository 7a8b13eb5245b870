"""Histories: series of numbers and the matrix of trust ratios."""

import json
from typing import Annotated, Any, Literal, get_args

import numpy as np
from fastapi import APIRouter, Header, Query, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse

from server.http.context import NamedJob, ServerParts
from server.storage import histories
from server.storage.histories import EVALUATION_SERIES, SERIES, Vector
from server.storage.records import Newest
from workers.contract.fields import MOST

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])

PACKED = "application/octet-stream"
Kind = Literal["status", "tensors", "evaluation", "checkpoint", "alert", "log"]
_KINDS: tuple[Kind, ...] = get_args(Kind)


@router.get("/records")
def newest(
    job: NamedJob,
    server: ServerParts,
    kind: Annotated[list[Kind] | None, Query(description="Kinds of records; all where none is given.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Records at most.")] = 200,
) -> Newest:
    """Read the last records of the given kinds, in order: checkpoints, alerts, changes of status, lines of text.

    `last_seq` is the number of the last record of any kind: a stream of events `after` it goes on from here.
    """
    return server.records.newest(job.id, kind or _KINDS, limit)


class MetricSeries(BaseModel):
    """A number of each bucket of steps, null where it is missing or not finite."""

    min: list[float | None]
    max: list[float | None]
    last: list[float | None]


class Metrics(BaseModel):
    """Series of a job's steps, pooled to buckets."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    steps: list[int]
    """The last step of each bucket."""
    series: dict[str, MetricSeries]


@router.get("/metrics", responses={200: {"model": Metrics}})
def metrics(
    job: NamedJob,
    server: ServerParts,
    series: Annotated[str, Query(max_length=1000, description="Names of series, with commas between them.")] = ",".join(
        (*SERIES, *EVALUATION_SERIES)
    ),
    start: Annotated[int, Query(ge=1, le=MOST, alias="from", description="First step.")] = 1,
    end: Annotated[int | None, Query(ge=1, le=MOST, alias="to", description="Last step.")] = None,
    buckets: Annotated[int, Query(ge=1, le=10_000, description="Points of a series at most.")] = 1000,
) -> Response:
    """Read series, pooled to `buckets` runs of steps: `{"steps": […], "series": {name: {"min", "max", "last"}}}`.

    `steps` holds the last step of each bucket. A number that is missing or not finite is null. The series that begin
    with `evaluation_` have numbers at the steps after which the model was judged by held-out text.
    """
    names = [name.strip() for name in series.split(",") if name.strip()]
    found = server.histories.metrics(job.id, names, start=start, end=end, buckets=buckets)
    return JSONResponse(_metrics_document(found))


@router.get("/trust-ratios", responses={200: {"content": {PACKED: {}}}})
def trust_ratios(
    job: NamedJob,
    server: ServerParts,
    what: Annotated[Vector, Query(description="Which number of a tensor.")] = "trust_ratio",
    start: Annotated[int, Query(ge=1, le=MOST, alias="from", description="First step.")] = 1,
    end: Annotated[int | None, Query(ge=1, le=MOST, alias="to", description="Last step.")] = None,
    columns: Annotated[int, Query(ge=1, le=4096, description="Columns of the matrix at most.")] = 2048,
    accept: Annotated[str, Header(description="`application/octet-stream` for the packed form.")] = "",
) -> Response:
    """Read one number of every tensor at every step: `{"steps", "names", "values"}` and more.

    `names` are those of all sets of tensors that the job has had, in order of first appearance; `values` holds a row
    for each name and a number for each of `steps`, null where the step had no such tensor; `sets` tells the rows of
    each set. Wider histories are thinned to at most `columns` runs of `stride` steps, from `first` on, of which each
    shows its last step that has numbers. `skipped` are all steps that have none because the gradient was not finite.

    With `Accept: application/octet-stream` the body is four bytes, the length of a JSON text as a little-endian
    integer; that text, which is the same document without `values`; and the values as little-endian float16, row after
    row, NaN for null.
    """
    found = server.histories.matrix(job.id, what, start=start, end=end, columns=columns)
    head = {"what": what} | {
        name: getattr(found, name) for name in ("names", "adapted", "sets", "first", "stride", "steps", "skipped")
    }
    if PACKED in accept:
        return _packed(head, found.values)
    return JSONResponse(head | {"values": [_finite(row) for row in found.values]})


def _metrics_document(found: histories.Metrics) -> dict[str, Any]:
    series = {
        name: {
            "min": _finite(found.minimum[name]),
            "max": _finite(found.maximum[name]),
            "last": _finite(found.last[name]),
        }
        for name in found.last
    }
    return {"steps": found.steps.tolist(), "series": series}


def _packed(head: dict[str, Any], values: NDArray[np.float32]) -> Response:
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (len(text) % 2)  # the numbers begin at a multiple of their size
    with np.errstate(over="ignore"):  # a number beyond 65,504 is shown as infinite
        body = len(text).to_bytes(4, "little") + text + values.astype("<f2").tobytes()
    return Response(body, media_type=PACKED)


def _finite(values: NDArray[Any]) -> list[float | None]:
    """Return the numbers with the seven digits that float32 holds."""
    return [float(f"{value:.7g}") if np.isfinite(value) else None for value in values.tolist()]
