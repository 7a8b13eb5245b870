from typing import Any

import pytest

from workers.contract.documents import parse_spec
from workers.contract.problems import Problem, SpecError
from workers.contract.spec.data import Data


def problem(**data: Any) -> Problem:
    phases = [{"seq_len": 64, "global_batch_size": 64, "steps": 3, "lr": 1e-3}]
    with pytest.raises(SpecError) as caught:
        parse_spec({"name": "tiny", "data": {"corpus": ["builtin:austen"]} | data, "phases": phases})
    (only,) = caught.value.problems
    return only


@pytest.mark.parametrize("lowercase", ["auto", True, False])
def test_text_is_read_in_lower_case_or_not_or_as_the_vocabulary_wants_it(lowercase: Any) -> None:
    assert Data(corpus=("builtin:austen",), lowercase=lowercase).lowercase == lowercase
    assert Data(corpus=("builtin:austen",)).lowercase == "auto"


@pytest.mark.parametrize("lowercase", ["maybe", "true", 1, None, [True]])
def test_another_word_for_the_case_is_one_problem_with_a_remedy(lowercase: Any) -> None:
    found = problem(lowercase=lowercase)
    assert (found.field, found.value) == ("data.lowercase", repr(lowercase))
    assert found.remedy == "write auto, true or false"


@pytest.mark.parametrize("size", [5, 65_537])
def test_a_vocabulary_that_token_shards_cannot_hold_is_refused(size: int) -> None:
    found = problem(vocab=size)
    assert (found.field, found.value) == ("data.vocab", str(size))
    assert "more than 5 and at most 65536 entries" in found.problem


def test_a_job_without_text_is_refused() -> None:
    assert problem(corpus=[]).field == "data.corpus"
