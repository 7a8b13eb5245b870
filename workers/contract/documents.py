"""From the text of a job file or a request to a JobSpec."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from .problems import Problem, SpecError, explain
from .spec.job import JobSpec
from .text_files import is_url, without_protocol


def parse_spec(document: object) -> JobSpec:
    """Validate a document that was already read.

    Raises:
        SpecError: with one problem for each field that is wrong.
    """
    if not isinstance(document, Mapping):
        raise _not_a_mapping(document)
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise explain(error, JobSpec) from None


def read_spec(text: str) -> JobSpec:
    """Read a specification from YAML text, of which JSON is a part.

    Raises:
        SpecError: the text is not YAML, or not a valid specification.
    """
    return parse_spec(read_document(text))


def read_document(text: str, most_nodes: int | None = None) -> Any:
    """Read YAML (or JSON) without anchors, which could make a small text expand without bound.

    Args:
        text: the document.
        most_nodes: how many mappings, lists and values it may have, each of which takes about 100 µs to read.

    Raises:
        SpecError: the text is not YAML, or has too many parts or levels; the problem names line and column.
    """
    try:
        return _Loader(text, most_nodes).get_single_data()
    except yaml.MarkedYAMLError as error:
        where = _place(error.problem_mark)
        if isinstance(error, _RepeatedKeyError):
            raise SpecError([_repeated(where, error.key)]) from None
        raise SpecError([_malformed(where, "YAML", _said(error))]) from None
    except yaml.reader.ReaderError as error:
        what = f"the character U+{error.character:04X} is not allowed"
        raise SpecError([_malformed(_place_at(text, error.position), "YAML", what)]) from None
    except RecursionError as error:
        raise SpecError([_malformed("(document)", "YAML", _unreadable(error))]) from None


def read_json_document(text: str) -> Any:
    """Read JSON without repeated keys, of which Python would silently ignore all but the last.

    Raises:
        SpecError: the text is not JSON, or a key occurs twice; the problem names line and column.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except _RepeatedKeyError as error:
        raise SpecError([_repeated(_place_of_repeat(text), error.key)]) from None
    except json.JSONDecodeError as error:
        raise SpecError([_malformed(_place_at(text, error.pos), "JSON", error.msg)]) from None
    except (ValueError, RecursionError) as error:
        raise SpecError([_malformed("(document)", "JSON", _unreadable(error))]) from None


def read_file(path: Path) -> Any:
    """Read a job file without validating it; relative paths in it start at its folder.

    Raises:
        SpecError: there is no such file, or it is not YAML in UTF-8.
    """
    try:
        return resolve_paths(read_document(path.read_text(encoding="utf-8")), path.resolve().parent)
    except UnicodeDecodeError:
        raise SpecError([Problem("FILE", repr(str(path)), "is not UTF-8 text", "save it as UTF-8")]) from None
    except OSError as error:
        raise SpecError([Problem("FILE", repr(str(path)), error.strerror or "unreadable", "check the path")]) from None


def resolve_paths(document: Any, folder: Path) -> Any:
    """Make the relative paths of an unvalidated document absolute; they start at the folder of its file."""
    if not isinstance(document, dict):
        return document
    resolved = dict(document)
    if isinstance(model := document.get("model"), dict) and "init_from" in model:
        resolved["model"] = {**model, "init_from": _absolute(model["init_from"], folder)}
    if isinstance(data := document.get("data"), dict):
        resolved["data"] = _resolved_data(data, folder)
    start = document.get("start_from")
    if isinstance(start, dict) and isinstance(run := start.get("run"), str) and "/" in run:  # else the id of a job
        resolved["start_from"] = {**start, "run": _absolute(run, folder)}
    return resolved


def _resolved_data(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    resolved = dict(data)
    for field in ("corpus", "validation"):
        if isinstance(data.get(field), list):
            resolved[field] = [_absolute(source, folder) for source in data[field]]
    if isinstance(data.get("vocab"), str):
        resolved["vocab"] = _absolute(data["vocab"], folder)
    return resolved


def _unreadable(error: ValueError | RecursionError) -> str:
    """Say why a text cannot be read where Python's own words speak of its insides."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number has too many digits" if "integer string conversion" in str(error) else str(error)


def _said(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    return f"{error.context}, {problem}" if problem.startswith("but ") and error.context else problem


def _place(mark: yaml.Mark | None) -> str:
    return "(document)" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"


def _place_at(text: str, position: int) -> str:
    before = text[:position]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _place_of_repeat(text: str) -> str:
    """Find the repeated key of a JSON text by reading it as YAML, whose reader counts lines."""
    try:
        yaml.load(text.replace("\t", " "), Loader=_Loader)  # noqa: S506 -- _Loader is a SafeLoader
    except _RepeatedKeyError as error:
        return _place(error.problem_mark)
    except yaml.YAMLError:  # not all JSON is YAML: a key may be too long for it
        pass
    return "(document)"


class _RepeatedKeyError(yaml.MarkedYAMLError):
    """A mapping has a key twice."""

    def __init__(self, key: object, mark: yaml.Mark | None = None) -> None:
        super().__init__(problem=f"the key {key!r} occurs twice", problem_mark=mark)
        self.key = key


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise _RepeatedKeyError(key)
        mapping[key] = value
    return mapping


MOST_LEVELS = 100
"""How deep a document may be nested; a job has six levels."""
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, repeated keys and huge documents, and says where a value cannot be read."""

    def __init__(self, text: str, most_nodes: int | None = None) -> None:
        super().__init__(text)
        self._nodes, self._depth, self._most_nodes = 0, 0, most_nodes

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._nodes += 1
        if self._depth > MOST_LEVELS:
            self._refuse(f"it is nested deeper than {MOST_LEVELS} levels")
        if self._most_nodes is not None and self._nodes > self._most_nodes:
            self._refuse(f"it has more than {self._most_nodes:,} values, and JSON may have more")
        try:
            return self._compose(parent, index)
        finally:
            self._depth -= 1

    def _refuse(self, problem: str) -> None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

    def _compose(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # an impossible date, a number of thousands of digits
            raise yaml.MarkedYAMLError(problem=_unreadable(error), problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != _MERGE:
                key = self.construct_object(key_node)
                if key in keys:
                    raise _RepeatedKeyError(key, key_node.start_mark)
                keys.add(key)
        return super().construct_mapping(node, deep)


def _absolute(source: object, folder: Path) -> object:
    if not isinstance(source, str) or source.startswith("builtin:") or is_url(source):
        return source
    try:
        return str((folder / Path(without_protocol(source)).expanduser()).resolve())
    except (RuntimeError, ValueError):  # an unknown user's home, a NUL: refused with the file's other faults
        return source


def _malformed(where: str, language: str, problem: str) -> Problem:
    return Problem(where, "(text)", f"not valid {language}: {problem}", "correct the text there")


def _repeated(where: str, key: object) -> Problem:
    return Problem(where, repr(key), "this key is given twice in one mapping", "remove one of the two")


def _not_a_mapping(document: object) -> SpecError:
    remedy = "write a mapping with at least name, data and phases"
    return SpecError(
        [
            Problem(
                "(document)",
                "(empty)" if document is None else repr(document)[:80],
                "is not a mapping, and a job specification is one",
                remedy,
            )
        ]
    )
