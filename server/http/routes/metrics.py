"""Histories: series of numbers and the matrix of trust ratios."""

from typing import Annotated, Any, Literal, get_args

import numpy as np
from fastapi import APIRouter, Header, Query, Response
from numpy.typing import NDArray
from starlette.responses import JSONResponse

from server.http.context import NamedJob, ServerParts
from server.storage.histories import SERIES, Metrics, Newest, TrustRatios

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])

PACKED = "application/octet-stream"
Kind = Literal["status", "tensors", "checkpoint", "alert", "log"]
_KINDS: tuple[Kind, ...] = get_args(Kind)


@router.get("/records")
def newest(
    job: NamedJob,
    server: ServerParts,
    kind: Annotated[list[Kind] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Newest:
    """Read the last records of the given kinds, in order: checkpoints, alerts, changes of status, lines of text.

    `last_seq` is the number of the last record of any kind: a stream of events `after` it goes on from here.
    """
    return server.histories.newest(job.id, kind or _KINDS, limit)


@router.get("/metrics")
def metrics(
    job: NamedJob,
    server: ServerParts,
    series: Annotated[str, Query(max_length=1000)] = ",".join(SERIES),
    start: Annotated[int, Query(ge=1, alias="from")] = 1,
    end: Annotated[int | None, Query(ge=1, alias="to")] = None,
    buckets: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    """Read series, pooled to `buckets` runs of steps: `{"steps": […], "series": {name: {"min", "max", "last"}}}`.

    `steps` holds the last step of each bucket. A number that is missing or not finite is null.
    """
    names = [name.strip() for name in series.split(",") if name.strip()]
    found = server.histories.metrics(job.id, names, start=start, end=end, buckets=buckets)
    return JSONResponse(_metrics_document(found))


@router.get("/trust-ratios", responses={200: {"content": {PACKED: {}}}})
def trust_ratios(
    job: NamedJob,
    server: ServerParts,
    start: Annotated[int, Query(ge=1, alias="from")] = 1,
    end: Annotated[int | None, Query(ge=1, alias="to")] = None,
    columns: Annotated[int, Query(ge=1, le=4096)] = 2048,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Read the matrix of tensors by steps: `{"steps", "names", "adapted", "values": [a row per name]}`.

    Wider histories are thinned to at most `columns` columns of `stride` steps each, of which each shows the last step.
    With `Accept: application/octet-stream` the body is the values alone: little-endian float16, row after row, NaN
    where a value is missing. The headers say `Bigbatch-Rows`, `Bigbatch-Columns`, `Bigbatch-First-Step`,
    `Bigbatch-Last-Step` and `Bigbatch-Stride`; column k, from 0, is step min(first + (k + 1) * stride - 1, last).
    """
    found = server.histories.trust_ratios(job.id, start=start, end=end, columns=columns)
    return _packed(found) if PACKED in accept else JSONResponse(_ratios_document(found))


def _metrics_document(found: Metrics) -> dict[str, Any]:
    series = {
        name: {
            "min": _finite(found.minimum[name]),
            "max": _finite(found.maximum[name]),
            "last": _finite(found.last[name]),
        }
        for name in found.last
    }
    return {"steps": found.steps.tolist(), "series": series}


def _ratios_document(found: TrustRatios) -> dict[str, Any]:
    rows = [_finite(row, digits=5) for row in found.values]
    return {"steps": found.steps, "names": found.names, "adapted": found.adapted, "values": rows}


def _packed(found: TrustRatios) -> Response:
    rows, columns = found.values.shape
    headers = {
        "Bigbatch-Rows": rows,
        "Bigbatch-Columns": columns,
        "Bigbatch-First-Step": found.first,
        "Bigbatch-Last-Step": found.last,
        "Bigbatch-Stride": found.stride,
    }
    with np.errstate(over="ignore"):  # a ratio beyond 65,504 is shown as infinite
        body = found.values.astype("<f2").tobytes()
    return Response(body, media_type=PACKED, headers={name: str(value) for name, value in headers.items()})


def _finite(values: NDArray[Any], digits: int = 7) -> list[float | None]:
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
