"""Sweeps: one job in many variants, which belong together."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.contract.assignments import set_fields
from workers.contract.problems import Problem, SpecError, explain

MOST_JOBS = 256


class Sweep(BaseModel):
    """A job, and what its variants have other than it: either a grid or a list."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    job: dict[str, Any]
    """The specification that all variants share, as for one job."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = Field(default=None, min_length=1)
    """Values of fields by their names, such as {"phases[0].lr": [1.0e-3, 3.0e-3], seed: [0, 1]}; each with each."""
    variants: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = Field(default=None, alias="list")
    """The fields of each variant, such as [{seed: 0}, {seed: 1, "phases[0].lr": 3.0e-3}]."""


def variants(document: Any) -> list[dict[str, Any]]:
    """Return the job documents of a sweep, named NAME-1, NAME-2 and so on unless it sets their names itself.

    Raises:
        SpecError: it is no sweep, has more than MOST_JOBS jobs, or sets a field that leads nowhere.
    """
    try:
        sweep = Sweep.model_validate(document)
    except ValidationError as error:
        raise explain(error, Sweep) from None
    if (sweep.grid is None) == (sweep.variants is None):
        raise _refusal("(document)", "a sweep", "has not exactly one of grid and list", "write one of them")
    changes = list(itertools.islice(_changes(sweep), MOST_JOBS + 1))
    if len(changes) > MOST_JOBS:
        field = "grid" if sweep.variants is None else "list"
        raise _refusal(field, "(values)", f"gives more than {MOST_JOBS} jobs", "write fewer values, or several sweeps")
    name = sweep.job.get("name")
    return [
        set_fields(sweep.job, {"name": f"{name}-{number}"} | change) for number, change in enumerate(changes, start=1)
    ]


def _changes(sweep: Sweep) -> Iterator[dict[str, Any]]:
    if sweep.grid is None:
        return iter(sweep.variants or [])
    values = itertools.product(*sweep.grid.values())
    return (dict(zip(sweep.grid, each, strict=True)) for each in values)


def _refusal(field: str, value: str, problem: str, remedy: str) -> SpecError:
    return SpecError([Problem(field, value, problem, remedy)])
