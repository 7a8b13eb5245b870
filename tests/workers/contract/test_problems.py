import pickle
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from workers.contract.problems import Problem, SpecError, counted, explain


class Inner(BaseModel, extra="forbid"):
    count: Annotated[int, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = ("a",)
    kind: Literal["x", "y"] = "x"
    word: Annotated[str, Field(min_length=2, max_length=3, pattern="^[a-z]*$")] = "ab"
    is_on: bool = True
    table: dict[str, str] = {}


class Outer(BaseModel, extra="forbid"):
    inner: Inner
    choice: int | Inner = 1


def _problems(document: Any) -> list[Problem]:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(document)
    return list(explain(error.value, Outer).problems)


@pytest.mark.parametrize(
    ("field", "value", "says", "remedy"),
    [
        ("count", "many", "is not a whole number", "write a whole number"),
        ("count", 1.5, "is not a whole number", "write a whole number"),
        ("count", [1], "is not a whole number", "write a whole number"),
        ("count", 0, "is less than 1", "write a value of at least 1"),
        ("count", 10, "is more than 9", "write a value of at most 9"),
        ("share", "half", "is not a number", "write a number such as 6.0e-3"),
        ("share", 0, "is not more than 0.0", "write a value greater than 0.0"),
        ("share", 1, "is not less than 1.0", "write a value less than 1.0"),
        ("share", float("nan"), "is not finite", "write a finite number"),
        ("names", [], "has a length of 0", "write a value with a length of at least 1"),
        ("names", ["a", "b", "c"], "has a length of 3", "write a value with a length of at most 2"),
        ("names", 5, "is not a list", "write a list: [a, b]"),
        ("kind", "z", "is not one of the values allowed here", "write one of 'x' or 'y'"),
        ("word", 5, "is not text", "write text, in quotes if it looks like a number"),
        ("word", "a", "is too short", "write a value with a length of at least 2"),
        ("word", "abcd", "is too long", "write a value with a length of at most 3"),
        ("word", "A1", "has characters that are not allowed here", "write a value that matches ^[a-z]*$"),
        ("is_on", "perhaps", "is neither true nor false", "write true or false"),
        ("table", [], "is not a mapping", "write a mapping: {key: value}"),
    ],
)
def test_each_kind_of_fault_is_told_in_our_own_words(field: str, value: object, says: str, remedy: str) -> None:
    (problem,) = _problems({"inner": {field: value}})
    assert (problem.field, problem.problem, problem.remedy) == (f"inner.{field}", says, remedy)


def test_a_missing_field_an_unknown_one_and_a_section_of_the_wrong_kind_are_told() -> None:
    assert _problems({}) == [Problem("inner", "(absent)", "is required", "add this field")]
    assert _problems({"inner": {"cuont": 1}}) == [
        Problem("inner.cuont", "1", "there is no such key", "did you mean 'count'?")
    ]
    (problem,) = _problems({"inner": 3})
    assert (problem.problem, problem.remedy) == ("is not a mapping", "write a mapping: {key: value}")


def test_a_problem_reads_as_one_line() -> None:
    problem = Problem("phases[0].steps", "0", "is less than 1", "write a value of at least 1")
    assert str(problem) == "phases[0].steps = 0: is less than 1. Remedy: write a value of at least 1."


def test_one_is_written_in_the_singular() -> None:
    numbers = [counted(number, "worker") for number in (0, 1, 2.0, 0.5, 1_234_567)]
    assert numbers == ["0 workers", "1 worker", "2 workers", "0.5 workers", "1,234,567 workers"]


class Cat(BaseModel, extra="forbid"):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Count(BaseModel, extra="forbid"):
    kind: Literal["lives"] = "lives"
    inner: Inner = Inner()
    cat: int | Inner = 1


class House(BaseModel, extra="forbid"):
    pets: list[Annotated[Cat | Count, Field(discriminator="kind")]] = []
    names: dict[str, int] = {}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"pets": [{"kind": "cat", "lives": "many"}]}, "pets[0].lives"),
        ({"pets": [{"kind": "cat"}, {"kind": "lives", "inner": {"count": 0}}]}, "pets[1].inner.count"),
        ({"pets": [{"kind": "lives", "cat": "x"}]}, "pets[0].cat"),
        ({"pets": [{"kind": "dog"}]}, "pets[0]"),
        ({"pets": [{"kind": "cat", "claws": 1}]}, "pets[0].claws"),
        ({"names": {"Tom": "x"}}, "names.Tom"),
        ({"names": {"int": "x"}}, "names.int"),
    ],
)
def test_a_field_is_named_as_the_document_has_it(document: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as error:
        House.model_validate(document)
    assert {problem.field for problem in explain(error.value, House).problems} == {field}


def test_the_keys_of_a_unions_member_are_those_of_its_tag() -> None:
    with pytest.raises(ValidationError) as error:
        House.model_validate({"pets": [{"kind": "lives", "x": 1}]})
    (problem,) = explain(error.value, House).problems
    assert problem.remedy == "remove it; the keys here are kind, inner, cat"


def test_a_number_of_thousands_of_digits_is_told_of() -> None:
    (problem,) = _problems({"inner": {"count": int("f" * 5000, 16)}})
    assert (problem.field, problem.value) == ("inner.count", "(int)")


def test_an_error_reaches_another_process_with_its_problems() -> None:
    error = SpecError([Problem("seed", "-1", "is less than 0", "write 0"), Problem("name", "''", "is too short", "x")])
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert (arrived.problems, str(arrived)) == (error.problems, str(error))
