import base64
import os
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from workers.contract.problems import counted
from workers.contract.records import (
    RECORD,
    AlertRecord,
    EvaluationRecord,
    LogRecord,
    RunStatus,
    StatusRecord,
    StepRecord,
    TensorsRecord,
    tensor_set,
)

WHEN = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
STEP: dict[str, Any] = {
    "seq": 3,
    "time": WHEN,
    "kind": "step",
    "step": 1,
    "phase": 0,
    "loss": 7.5,
    "mlm_loss": 6.8,
    "nsp_loss": 0.7,
    "mlm_accuracy": 0.1,
    "lr": 0.01,
    "grad_norm": 1.5,
    "clip_coef": 0.5,
    "skipped": False,
    "tokens_per_s": 1000.0,
    "step_s": 0.1,
    "trust_ratio": [0.123, None],
}
"""A step as the first version wrote it."""


def step(**changes: Any) -> StepRecord:
    record = RECORD.validate_python(STEP | changes)
    assert isinstance(record, StepRecord)
    return record


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def test_numbers_are_written_as_base64_of_little_endian_float32() -> None:
    text = packed(0.123, 0.5)
    document = step(trust_ratio=text).model_dump(mode="json")
    assert document["trust_ratio"] == text
    assert RECORD.validate_json(step(trust_ratio=text).model_dump_json()) == step(trust_ratio=text)


def test_a_step_of_an_older_version_is_read_with_what_it_meant() -> None:
    found = step()
    assert found.trust_ratio == struct.pack("<2f", 0.123, float("nan"))
    assert (found.set, found.weight_norm, found.attempt, found.rows) == (None, None, None, None)


def test_a_skipped_step_of_an_older_version_has_no_ratios_though_it_says_1() -> None:
    assert step(skipped=True, trust_ratio=[1.0, 1.0]).trust_ratio is None


def test_names_of_an_older_version_get_the_set_that_a_newer_one_would_give_them() -> None:
    older = RECORD.validate_python({"seq": 1, "time": WHEN, "kind": "tensors", "names": ["a"], "adapted": [True]})
    assert isinstance(older, TensorsRecord)
    assert older.set == tensor_set(["a"], [True])
    assert older.set == TensorsRecord(names=["a"], adapted=[True]).set
    assert older.set != tensor_set(["a"], [False])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"trust_ratio": packed(1.0), "weight_norm": packed(1.0, 2.0)},
            "has different counts of numbers: 1 in trust_ratio, 2 in weight_norm",
        ),
        ({"trust_ratio": packed(1.0), "skipped": True}, "was skipped, but has trust_ratio"),
        ({"loss": float("nan")}, "finite number"),
        ({"step": 2**53}, "less than or equal to 9007199254740991"),
        ({"attempt": -1}, "greater than or equal to 0"),
        ({"seq": 0}, "has no number"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        step(**changes)


@pytest.mark.parametrize(("names", "adapted"), [(["a", "b"], [True]), (["a", "a"], [True, True])])
def test_every_tensor_has_one_name_and_one_flag(names: list[str], adapted: list[bool]) -> None:
    with pytest.raises(ValidationError, match=r"names, but|has a name twice"):
        TensorsRecord(names=names, adapted=adapted)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_set_refuses_a_step_with_another_number_of_tensors(count: int) -> None:
    tensors = TensorsRecord(names=["a", "b"], adapted=[True, True])
    tensors.check(step())
    with pytest.raises(ValueError, match=f"has {counted(count, 'number')}, but the set {tensors.set} has 2 tensors"):
        tensors.check(step(trust_ratio=[0.5] * count))


def test_a_file_name_that_is_not_utf_8_can_be_told_of() -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    records = (
        LogRecord(text=name),
        AlertRecord(level="info", title=name, detail=name),
        StatusRecord(status=RunStatus.FAILED, attempt=1, error=name),
    )
    assert [record.model_dump_json().count("caf\\\\udce9.txt") for record in records] == [1, 2, 1]


@pytest.mark.parametrize(("perplexity", "told"), [(450.505, "450.5,"), (12345.678, "12346,"), (1e217, "1e+217,")])
def test_a_perplexity_is_told_in_a_few_digits_however_large_it_is(perplexity: float, told: str) -> None:
    evaluation = {
        "kind": "evaluation",
        "seq": 1,
        "time": "2026-01-31T12:00:00Z",
        "step": 2000,
        "attempt": 1,
        "phase": 0,
        "seq_len": 64,
    }
    means = {"mlm_loss": 6.11, "mlm_accuracy": 0.1, "perplexity": perplexity, "nsp_loss": 0.7, "nsp_accuracy": 0.5}
    record = RECORD.validate_python(evaluation | means | {"rows": 1, "masked": 9, "seconds": 1.0})
    assert isinstance(record, EvaluationRecord)
    assert f"perplexity {told} NSP accuracy 50.0% (1 row of 64 tokens, after step 2,000)" in record.figures
