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


@pytest.mark.parametrize("validation", [None, 0.01, ["builtin:austen-valid"]])
def test_held_out_text_is_files_or_a_share(validation: Any) -> None:
    read = Data.model_validate({"corpus": ["builtin:austen"], "validation": validation}).validation
    assert read == (tuple(validation) if isinstance(validation, list) else validation)


@pytest.mark.parametrize("validation", [[], 0.0, 1.0, 1.5, -0.1, True, "builtin:austen-valid", "0.1", {"a": 1}])
def test_held_out_text_that_is_empty_or_neither_is_one_problem_with_a_remedy(validation: Any) -> None:
    found = problem(validation=validation)
    assert (found.field, found.value) == ("data.validation", repr(validation))
    assert found.remedy == "name files in a list, such as [builtin:austen-valid], or write a share such as 0.01"


def test_a_job_without_text_is_refused() -> None:
    assert problem(corpus=[]).field == "data.corpus"


def test_by_default_each_row_is_one_pair_of_segments_as_older_versions_made_it() -> None:
    data = Data(corpus=("builtin:austen",))
    assert (data.whole_word, data.next_sentence, data.packing, data.short_sequences) == (False, True, False, 0)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_the_share_of_short_samples_lies_below_one(share: float) -> None:
    assert problem(short_sequences=share).field == "data.short_sequences"
