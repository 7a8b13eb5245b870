"""What is wrong with a document, told to its author: which field, which value, what is wrong and what to do."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

_NUMBER, _WHOLE, _TEXT = "is not a number", "is not a whole number", "is not text"
_TIME = "is not a date with a time"
_SWITCH, _LIST, _MAPPING = "is neither true nor false", "is not a list", "is not a mapping"
_WORDS = {
    "extra_forbidden": "there is no such key",
    "missing": "is required",
    "literal_error": "is not one of the values allowed here",
    "enum": "is not one of the values allowed here",
    "greater_than": "is not more than {gt}",
    "greater_than_equal": "is less than {ge}",
    "less_than": "is not less than {lt}",
    "less_than_equal": "is more than {le}",
    "too_short": "has a length of {actual_length}",
    "too_long": "has a length of {actual_length}",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "string_pattern_mismatch": "has characters that are not allowed here",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "has too many digits",
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "is not finite",
    "string_type": _TEXT,
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "json_invalid": "is not valid JSON: {error}",
    "invalid_key": "has a key that is not text",
    "timezone_aware": "has no time zone",
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_type": _TIME,
    "union_tag_invalid": "{tag} is not one of the values of {discriminator}",
    "union_tag_not_found": "has no {discriminator}",
}
_REMEDIES = {
    "missing": "add this field",
    "json_invalid": "correct the text there",
    "invalid_key": "put the key in quotes",
    "timezone_aware": "write a time such as 2026-01-31T12:00:00Z",
    "union_tag_not_found": "add this field",
    "int_parsing_size": "write a smaller number",
    "finite_number": "write a finite number",
    "float_parsing": "write a number such as 6.0e-3",
    "string_type": "write text, in quotes if it looks like a number",
    _WHOLE: "write a whole number",
    _NUMBER: "write a number",
    _SWITCH: "write true or false",
    _LIST: "write a list: [a, b]",
    _MAPPING: "write a mapping: {key: value}",
    _TIME: "write a time such as 2026-01-31T12:00:00Z",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the dotted field, its value, the fault and the remedy."""

    field: str
    value: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """Return it as one line of text."""
        return f"{self.field} = {self.value}: {self.problem}. Remedy: {self.remedy}."

    def as_dict(self) -> dict[str, str]:
        """Return the form that it has in a problem document."""
        return asdict(self)


class SpecError(ValueError):
    """The job specification is not valid; `problems` tells each fault with its field and the remedy."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))

    def __reduce__(self) -> tuple[type["SpecError"], tuple[tuple[Problem, ...]]]:
        """Travel between ranks as the problems, of which the message is made again."""
        return SpecError, (self.problems,)


def counted(number: float, noun: str) -> str:
    """Write a number with its noun: `1 worker`, `2 workers`."""
    written = f"{int(number):,}" if number == int(number) else f"{number:,g}"
    return f"{written} {noun}" + ("" if number == 1 else "s")


def fault(problem: str, remedy: str, field: str = "", value: object = None) -> PydanticCustomError:
    """Return the error that a validator raises; a validator of a whole model names the field and its value."""
    context = {"problem": problem, "remedy": remedy, "field": field, "value": value}
    return PydanticCustomError("bigbatch", "{problem}", context)


def explain_parameters(errors: Sequence[ErrorDetails]) -> list[Problem]:
    """Translate the errors of a request's parameters; their fields are named as `query.limit`."""
    return [replace(_problem(details, BaseModel), field=_dotted(details["loc"])) for details in errors]


def explain_option(error: ValidationError) -> str:
    """Translate what is wrong with the value of an option of the command line."""
    details = error.errors(include_url=False)[0]
    if details["type"] == "value_error":
        return str(details["ctx"]["error"]).rstrip(".")
    problem = _problem(details, BaseModel)
    return f"{problem.value} {problem.problem}; {problem.remedy}"


def explain(error: ValidationError, model: type[BaseModel]) -> SpecError:
    """Translate pydantic's errors for a document of `model` into problems with remedies."""
    every = error.errors(include_url=False)
    # Pydantic reports a list with a bad item a second time, as too short.
    telling = [details for details in every if details["type"] != "too_short" or not _has_deeper(details, every)]
    return SpecError([_problem(details, model) for details in telling])


def _has_deeper(details: ErrorDetails, every: Sequence[ErrorDetails]) -> bool:
    location = details["loc"]
    return any(len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in every)


def _problem(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    context = details.get("ctx") or {}
    location, _ = _in_document(details["loc"], model)
    field, value = _dotted([*location, *filter(None, [context.get("field")])]), details["input"]
    shown = "(absent)" if details["type"] == "missing" else _short(context["value"] if context.get("field") else value)
    return Problem(field or "(document)", shown, _says(details), _remedy(details, model))


def _says(details: ErrorDetails) -> str:
    words = _WORDS.get(details["type"])
    return details["msg"].rstrip(".") if words is None else words.format(**details.get("ctx") or {})


def _remedy(details: ErrorDetails, model: type[BaseModel]) -> str:
    context = details.get("ctx") or {}
    if "remedy" in context:
        return str(context["remedy"])
    if details["type"] == "extra_forbidden":
        return _did_you_mean(details["loc"], model)
    if details["type"] in ("literal_error", "enum"):
        return f"write one of {context['expected']}"
    if details["type"] == "union_tag_invalid":
        return f"write one of {context['expected_tags']}"
    limits = [f"{word} {context[key]}" for key, word in _LIMITS.items() if key in context]
    known = _REMEDIES.get(details["type"]) or _REMEDIES.get(_says(details))
    return known or (f"write a value {' and '.join(limits)}" if limits else "see /docs for what is allowed here")


_LIMITS = {
    "ge": "of at least",
    "gt": "greater than",
    "le": "of at most",
    "lt": "less than",
    "min_length": "with a length of at least",
    "max_length": "with a length of at most",
    "pattern": "that matches",
}


def _did_you_mean(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Name the nearest known key, or all known keys, of the mapping that holds the unknown one."""
    keys = list(_in_document(location[:-1], model)[1].model_fields)
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"did you mean {near[0]!r}?" if near else f"remove it; the keys here are {', '.join(keys)}"


def _in_document(location: Sequence[int | str], model: type[BaseModel]) -> tuple[list[int | str], type[BaseModel]]:
    """Return a location as the document's author knows it, and the model of the mapping there.

    Pydantic also puts into it which member of a union was tried: its tag, `int` or `Workers`.
    """
    path: list[int | str] = []
    members, is_key = [model], False
    for part in location:
        tagged = [each for each in members if _has_tag(each, part)] if len(members) > 1 else []
        if tagged:
            members = tagged
        elif is_key or not _names_a_union_member(part):
            path.append(part)
        field = None if tagged else members[0].model_fields.get(str(part))
        is_key = field is not None and get_origin(field.annotation) is dict
        members = (field and [kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)]) or members
    return path, members[0]


def _has_tag(model: type[BaseModel], tag: int | str) -> bool:
    return any(
        field.default == tag and get_origin(field.annotation) is Literal for field in model.model_fields.values()
    )


def _kinds(annotation: object) -> list[type]:
    """Flatten `tuple[Phase, ...]` and `int | Workers` into the classes that they name."""
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return [annotation]
    return [kind for argument in getattr(annotation, "__args__", ()) for kind in _kinds(argument)]


def _names_a_union_member(part: int | str) -> bool:
    return isinstance(part, str) and (part in {"int", "str", "float"} or part[:1].isupper() or "[" in part)


def _dotted(location: Sequence[int | str]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


def _short(value: object) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    try:
        text = repr(dict(value)) if isinstance(value, Mapping) else repr(value)
    except ValueError:  # Python does not write out integers of thousands of digits
        return f"({type(value).__name__})"
    return text if len(text) <= 80 else text[:77] + "..."
