from pathlib import Path
from typing import Any

import pytest

from tests.workers.small_job import PHASE, document
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.run.changes import allowed_changes

CONSTANT = PHASE | {"decay": {"kind": "constant"}, "steps": 100, "warmup": 0.1}
TEXT = {"corpus": ["/text.txt"], "vocab": 90, "validation": 0.1}
LAST = PHASE | {"seq_len": 16}


def changes(before: dict[str, Any], after: dict[str, Any], done: int = 4) -> list[str]:
    specs = [parse_spec(document(Path(), zero_stage="auto") | {"data": TEXT} | changes) for changes in (before, after)]
    return [str(change) for change in allowed_changes(specs[0], specs[1], done)]


def refused(before: dict[str, Any], after: dict[str, Any], done: int = 4) -> set[str]:
    with pytest.raises(SpecError) as caught:
        changes(before, after, done)
    return {problem.field for problem in caught.value.problems}


def test_an_equal_specification_has_no_changes() -> None:
    assert changes({}, {}) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": {"team": "nlp"}}, ["labels.team: None → 'nlp'"]),
        ({"checkpoint": {"every_steps": 50, "keep": 9}}, ["checkpoint.every_steps: 2 → 50"]),
        ({"evaluation": {"every_steps": 50}}, ["evaluation.every_steps: 400 → 50"]),
        ({"execution": {"compile": "off"}}, ["execution.compile: 'auto' → 'off'"]),
        ({"execution": {"activation_checkpointing": True}}, ["execution.activation_checkpointing: False → True"]),
        ({"failures": {"max_restarts": 9}}, ["failures.max_restarts: 3 → 9"]),
        ({"parallel": {"workers": 2}}, ["parallel.workers: 1 → 2"]),
        ({"parallel": {"workers": {"min": 1, "max": 2}}}, ["parallel.workers: 1 → {'min': 1, 'max': 2}"]),
        ({"parallel": {"cpus_per_worker": 4}}, ["parallel.cpus_per_worker: 1 → 4"]),
        ({"parallel": {"zero_stage": 2}}, ["parallel.zero_stage: 'auto' → 2"]),
    ],
)
def test_what_does_not_change_the_result_may_change(change: dict[str, Any], told: list[str]) -> None:
    assert changes({}, change) == told


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": "other"}),
        ("seed", {"seed": 1}),
        ("model.layers", {"model": document(Path())["model"] | {"layers": 3}}),
        ("data.corpus", {"data": TEXT | {"corpus": ["/other.txt"]}}),
        ("data.validation", {"data": TEXT | {"validation": 0.2}}),
        ("data.mask_probability", {"data": TEXT | {"mask_probability": 0.2}}),
        ("optimizer.weight_decay", {"optimizer": {"weight_decay": 0.5}}),
        ("phases[0].lr", {"phases": [PHASE | {"lr": 1.0}]}),
        ("phases[0].global_batch_size", {"phases": [PHASE | {"global_batch_size": 16}]}),
        ("phases[0].micro_batch_size", {"phases": [PHASE | {"micro_batch_size": 4}]}),
        ("phases[0].steps", {"phases": [PHASE | {"steps": 7}]}),
        ("phases[0].warmup", {"phases": [PHASE | {"warmup": 0.1}]}),
        ("phases[0].lr", {"phases": [PHASE | {"lr": {"base": 1.0, "at_batch": 8, "rule": "sqrt"}}]}),
        ("phases[0].hold", {"phases": [PHASE | {"hold": 0.1}]}),
        ("phases[0].decay.kind", {"phases": [PHASE | {"decay": {"kind": "cosine"}}]}),
        ("phases[0].decay.final_lr", {"phases": [PHASE | {"decay": {"final_lr": 1e-4}}]}),
        ("start_from", {"start_from": {"run": "1qx92r16q7na", "step": 2}}),
    ],
)
def test_what_changes_the_result_is_refused_by_name(field: str, change: dict[str, Any]) -> None:
    assert refused({}, change) == {field}


def test_every_field_that_may_not_change_is_named_at_once() -> None:
    assert refused({}, {"seed": 1, "name": "other", "labels": {"a": "b"}}) == {"seed", "name"}


def test_a_phase_may_be_added_at_the_end_and_none_taken_away() -> None:
    (told,) = changes({}, {"phases": [PHASE, LAST]}, done=6)
    assert told.startswith("phases[1]: None → ")
    assert refused({"phases": [PHASE, LAST]}, {}) == {"phases[1]"}
    assert refused({"phases": [PHASE]}, {"phases": [LAST, PHASE]}) == {"phases[0].seq_len"}


def test_a_phase_of_constant_rate_may_get_more_steps_if_its_warm_up_stays_or_has_not_begun() -> None:
    before, longer = {"phases": [CONSTANT]}, CONSTANT | {"steps": 200}
    assert changes(before, {"phases": [longer | {"warmup": 0.05}]}, done=60) == [
        "phases[0].steps: 100 → 200",
        "phases[0].warmup: 0.1 → 0.05",
    ]
    assert changes(before, {"phases": [longer]}, done=0) == ["phases[0].steps: 100 → 200"]
    assert refused(before, {"phases": [longer]}, done=60) == {"phases[0].steps"}
    rule = {"base": 0.1, "at_batch": 8, "rule": "linear"}
    assert changes(before, {"phases": [longer | {"warmup": rule | {"base": 0.05}}]}, done=60)
    assert refused(before, {"phases": [longer | {"warmup": rule}]}, done=60) == {"phases[0].steps", "phases[0].warmup"}
    without = CONSTANT | {"warmup": 0.0}
    assert changes({"phases": [without]}, {"phases": [without | {"steps": 200}]}, done=60) == [
        "phases[0].steps: 100 → 200"
    ]


def test_a_phase_of_constant_rate_may_not_get_fewer_steps_or_more_once_the_next_one_has_begun() -> None:
    without = CONSTANT | {"warmup": 0.0}
    longer = without | {"steps": 200}
    assert refused({"phases": [longer]}, {"phases": [without]}) == {"phases[0].steps"}
    both = {"phases": [without, LAST]}
    assert refused(both, {"phases": [longer, LAST]}, done=101) == {"phases[0].steps"}
    assert changes(both, {"phases": [longer, LAST]}, done=100) == ["phases[0].steps: 100 → 200"]
