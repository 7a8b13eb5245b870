from typing import Any

import pytest

from workers.contract.assignments import assign, read_assignments, set_fields
from workers.contract.problems import SpecError

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "data": {"corpus": ["builtin:austen"]},
    "phases": [{"lr": 1e-3}, {"lr": {"base": 1e-3, "at_batch": 96, "rule": "sqrt"}}],
    "parallel": {"workers": 2},
}


@pytest.mark.parametrize(
    ("assignment", "field", "value"),
    [
        ("phases[1].lr=3.0e-3", "phases[1].lr", 3e-3),
        ("phases[0].lr=3e-3", "phases[0].lr", 3e-3),  # of which YAML makes text
        ("name=other", "name", "other"),
        ("labels.why=a=b", "labels.why", "a=b"),
        ("optimizer.max_grad_norm=null", "optimizer.max_grad_norm", None),
        ("optimizer.betas=[0.9, 0.95]", "optimizer.betas", [0.9, 0.95]),
        ("parallel.workers={min: 2, max: 4}", "parallel.workers", {"min": 2, "max": 4}),
        ("optimizer.bias_correction=false", "optimizer.bias_correction", False),
        ("name=", "name", None),
    ],
)
def test_a_value_is_json_or_yaml(assignment: str, field: str, value: object) -> None:
    assert read_assignments([assignment]) == {field: value}


def test_fields_are_set_in_a_copy_by_the_names_that_errors_give_them() -> None:
    changed = set_fields(DOCUMENT, {"phases[1].lr.base": 2e-3, "phases[0].decay.kind": "cosine", "labels.team": "nlp"})
    assert changed["phases"] == [
        {"lr": 1e-3, "decay": {"kind": "cosine"}},
        {"lr": {"base": 2e-3, "at_batch": 96, "rule": "sqrt"}},
    ]
    assert changed["labels"] == {"team": "nlp"}
    assert DOCUMENT["phases"][0] == {"lr": 1e-3}


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (
            "phases[2].lr",
            r"phases has no entry 2. Remedy: write one of phases\[0\], phases\[1\], or set phases as a whole",
        ),
        ("phases[0].lr.base", r"phases\[0\]\.lr is 0\.001 and has no fields. Remedy: set phases\[0\]\.lr as a whole"),
        ("phases.lr", "phases is .* and has no fields"),
        ("name[0]", "name is not a list. Remedy: leave the number out"),
        ("nothing[0].here", "nothing is not a list"),
        ("phases[-1].lr", "is not the name of a field. Remedy: write a name such as"),
        ("", r"\(no name\) = 1: is not the name of a field"),
        ("a b", "is not the name of a field"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_would(field: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        set_fields(DOCUMENT, {field: 1})


def test_every_name_that_leads_nowhere_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        set_fields(DOCUMENT, {"phases[7].lr": 1, "name.first": 2, "seed": 3})
    assert [problem.field for problem in caught.value.problems] == ["phases[7].lr", "name.first"]


def test_an_assignment_without_a_value_or_with_a_broken_one_is_refused() -> None:
    with pytest.raises(SpecError, match=r"--set = 'phases\[0\]\.lr': has no value"):
        read_assignments(["phases[0].lr"])
    with pytest.raises(SpecError, match="not valid YAML"):
        read_assignments(["optimizer.betas=[0.9"])


def test_paths_that_are_set_start_where_the_user_stands(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    changed = assign(DOCUMENT, ["data.vocab=vocab.txt", "start_from={run: runs/demo, step: 4}"])
    assert changed["data"] == {"corpus": ["builtin:austen"], "vocab": str(here / "vocab.txt")}
    assert changed["start_from"] == {"run": str(here / "runs" / "demo"), "step": 4}
    assert assign(DOCUMENT, []) is DOCUMENT
