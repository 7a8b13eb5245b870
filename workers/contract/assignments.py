"""`--set phases[1].lr=3.0e-3`: fields of a document set one by one, by the names that errors give them."""

import json
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from .documents import read_document, resolve_paths
from .problems import Problem, SpecError

_PART = re.compile(r"(?:^|\.)([A-Za-z_][\w-]*)|\[(\d+)\]")


def assign(document: Any, assignments: Iterable[str]) -> Any:
    """Return an unvalidated document with `FIELD=VALUE` applied, a value being JSON or YAML.

    Relative paths in values start at the current folder.

    Raises:
        SpecError: an assignment cannot be read, or its field leads nowhere in the document.
    """
    fields = read_assignments(assignments)
    return resolve_paths(set_fields(document, fields), Path.cwd()) if fields else document


def read_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Read `FIELD=VALUE` each, a value being JSON or YAML.

    Raises:
        SpecError: one has no value, or its value is neither.
    """
    return dict(map(_read, assignments))


def set_fields(document: Any, fields: Mapping[str, Any]) -> Any:
    """Return an unvalidated document in which these fields have other values; `document` stays as it is.

    Raises:
        SpecError: with a problem for each field that leads nowhere.
    """
    changed, problems = deepcopy(document), []
    for field, value in fields.items():
        if problem := _set(changed, field, value):
            problems.append(problem)
    if problems:
        raise SpecError(problems)
    return changed


def _read(assignment: str) -> tuple[str, Any]:
    field, has_value, text = assignment.partition("=")
    if not has_value:
        raise SpecError([Problem("--set", repr(assignment), "has no value", "write for example phases[0].lr=3.0e-3")])
    try:
        return field.strip(), json.loads(text)  # unlike YAML's, JSON's numbers include 3e-3
    except ValueError:
        return field.strip(), read_document(text)


def _set(document: Any, field: str, value: Any) -> Problem | None:
    """Set a field in place; return what is wrong with its name."""
    found = list(_PART.finditer(field))
    if not found or "".join(match[0] for match in found) != field:
        remedy = "write a name such as phases[0].lr or optimizer.weight_decay"
        return Problem(field or "(no name)", repr(value), "is not the name of a field", remedy)
    here = document
    for match, following in zip(found, [*found[1:], None], strict=True):
        part: Any = match[1] or int(match[2])
        if problem := _misses(here, part, field[: match.start()], field, value):
            return problem
        if following is None:
            here[part] = value
        elif isinstance(part, str) and following[1] and here.get(part) is None:
            here[part] = {}
        here = here.get(part) if isinstance(here, dict) else here[part]
    return None


def _misses(here: Any, part: int | str, path: str, field: str, value: Any) -> Problem | None:
    """Return what is wrong where a part of a name does not lead on from `here`, which is at `path`."""
    if isinstance(part, str):
        if isinstance(here, dict):
            return None
        problem, remedy = f"{path or 'the document'} is {here!r} and has no fields", f"set {path} as a whole"
    elif not isinstance(here, list):
        problem, remedy = f"{path} is not a list", "leave the number out"
    elif part >= len(here):
        entries = ", ".join(f"{path}[{number}]" for number in range(len(here)))
        problem, remedy = f"{path} has no entry {part}", f"write one of {entries}, or set {path} as a whole"
    else:
        return None
    return Problem(field, repr(value), problem, remedy)
