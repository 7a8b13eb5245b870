"""The errors of the server, as they are raised and shown."""

import pytest

from server import errors
from server.errors import RecordError, ServerError

PLAIN = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, ServerError) and each is not RecordError
]


@pytest.mark.parametrize("kind", PLAIN)
def test_an_error_without_a_detail_of_its_own_says_its_title_which_is_one_sentence(kind: type[ServerError]) -> None:
    error = kind()
    assert error.detail == error.title == str(error)
    assert error.title.endswith(".")
    assert kind("the port is taken").detail == "the port is taken"


def test_a_record_that_is_refused_is_named_by_its_number_with_field_and_remedy() -> None:
    error = RecordError(7, "loss", "is not a number", "write a number")
    assert (error.seq, error.status, error.detail) == (7, 422, "record 7: is not a number; write a number")
    assert [each.as_dict()["field"] for each in error.errors] == ["loss"]
