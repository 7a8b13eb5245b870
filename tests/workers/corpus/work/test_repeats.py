import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.corpus.work.outcome import DIGEST_BYTES, Outline
from workers.corpus.work.repeats import mark
from workers.corpus.work.tasks import HELD_OUT, REPEATED

SEGMENT = st.lists(st.sampled_from("abcd"), max_size=3)
UNITS = st.lists(st.lists(SEGMENT, min_size=1, max_size=4), min_size=1, max_size=5)


def outline(segments: list[list[str]]) -> Outline:
    digests = [hashlib.blake2b(p.encode(), digest_size=DIGEST_BYTES).digest() for s in segments for p in s]
    return Outline(np.frombuffer(b"".join(digests), f"V{DIGEST_BYTES}"), np.array([len(s) for s in segments]))


@given(UNITS)
def test_of_equal_paragraphs_all_but_the_first_of_the_whole_text_are_marked(units: list[list[list[str]]]) -> None:
    seen = set[str]()
    expected = list[list[int]]()
    for unit in units:
        paragraphs = [paragraph for segment in unit for paragraph in segment]
        expected.append([])
        for paragraph in paragraphs:
            expected[-1].append(int(REPEATED) if paragraph in seen else 0)
            seen.add(paragraph)
    marks = mark([outline(unit) for unit in units], deduplicate=True, share=None)
    assert [each.tolist() for each in marks] == expected


@given(UNITS)
def test_how_documents_are_cut_into_units_decides_nothing_about_what_is_held_out(units: list[list[list[str]]]) -> None:
    together = [list(units[0][0])]
    for number, unit in enumerate(units):
        for segment_number, segment in enumerate(unit):
            if segment_number:
                together.append(list(segment))
            elif number:
                together[-1] += segment
    cut, whole = (
        np.concatenate(mark([outline(each) for each in text], deduplicate=False, share=0.5))
        for text in (units, [together])
    )
    assert cut.tolist() == whole.tolist()
    assert set(whole.tolist()) <= {0, int(HELD_OUT)}
