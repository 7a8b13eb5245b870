from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.corpus.work.assembly import documents
from workers.corpus.work.outcome import Tokens

SENTENCE = st.lists(st.integers(0, 65_535), min_size=1, max_size=4)
UNITS = st.lists(st.lists(st.lists(SENTENCE, max_size=3), min_size=1, max_size=4), max_size=5)
"""Units of segments of sentences of tokens."""


def outcome(segments: Sequence[Sequence[Sequence[int]]], held_out: Sequence[bool] = ()) -> Tokens:
    sentences = [sentence for segment in segments for sentence in segment]
    return Tokens(
        tokens=np.array([token for sentence in sentences for token in sentence], np.uint16),
        lengths=np.array([len(sentence) for sentence in sentences], np.int32),
        sentences=np.array([len(segment) for segment in segments]),
        is_held_out=np.array(held_out or [False] * len(segments)),
    )


@given(UNITS)
def test_a_document_goes_on_in_the_next_unit_until_a_border_and_empty_ones_are_left_out(
    units: list[list[list[list[int]]]],
) -> None:
    expected: list[list[list[int]]] = [[]]
    for unit in units:
        expected[-1] += unit[0]
        expected += [list(segment) for segment in unit[1:]]
    found = list(documents(map(outcome, units)))
    ends = [np.cumsum(document.lengths)[:-1] for document in found]
    assert [
        [sentence.tolist() for sentence in np.split(document.tokens, end)]
        for document, end in zip(found, ends, strict=True)
    ] == [document for document in expected if document]


def test_a_document_is_held_out_where_any_of_its_segments_is() -> None:
    units = [outcome([[[1]], [[2]]], [True, False]), outcome([[[3]], []], [True, False])]
    assert [(document.tokens.tolist(), document.is_held_out) for document in documents(units)] == [
        ([1], True),
        ([2, 3], True),
    ]
