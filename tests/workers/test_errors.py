"""Every error of the workers comes out of Ray, which pickles it, as it went in."""

import importlib
import pickle
import pkgutil

import pytest
from ray import cloudpickle

import workers
from workers.contract.problems import Problem, SpecError
from workers.contract.sources import SourceError

ARGUMENTS: dict[type[BaseException], tuple[object, ...]] = {
    SpecError: ([Problem("a.b", "1", "is odd", "write 2"), Problem("c", "x", "is short", "write more")],),
    SourceError: ("s3://bucket/text", "is empty", "name another one"),
}
"""Of the errors that are not made of a message."""


def _classes() -> list[type[BaseException]]:
    names = [
        found.name for found in pkgutil.walk_packages(workers.__path__, "workers.") if "__main__" not in found.name
    ]
    members = [each for name in names for each in vars(importlib.import_module(name)).values()]
    errors = [each for each in members if isinstance(each, type) and issubclass(each, BaseException)]
    return sorted({each for each in errors if each.__module__.startswith("workers.")}, key=lambda each: each.__name__)


def _facts(error: BaseException) -> tuple[object, ...]:
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize("kind", _classes(), ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_between_processes(kind: type[BaseException]) -> None:
    error = kind(*ARGUMENTS.get(kind, ("what is wrong; and what to do",)))
    for module in (pickle, cloudpickle):
        assert _facts(module.loads(module.dumps(error))) == _facts(error)
