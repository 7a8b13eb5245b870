import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.corpus.work.outcome import DIGEST_BYTES, Outline, Segments, Tokens


def test_arrays_are_unpacked_as_they_were_packed() -> None:
    tokens = Tokens(
        np.array([7, 65_535], np.uint16), np.array([2], np.int32), np.array([0, 1]), np.array([False, True])
    )
    again = Tokens.unpack(tokens.pack())
    for name in ("tokens", "lengths", "sentences", "is_held_out"):
        assert getattr(again, name).dtype == getattr(tokens, name).dtype
        assert getattr(again, name).tolist() == getattr(tokens, name).tolist()
    outline = Outline(np.frombuffer(b"0123456789abcdef" * 2, f"V{DIGEST_BYTES}"), np.array([2]))
    assert Outline.unpack(outline.pack()).digests.tobytes() == b"0123456789abcdef" * 2


@given(st.lists(st.sampled_from(["a", "b", None])))
def test_segments_are_what_lies_between_ends_of_documents(paragraphs: list[str | None]) -> None:
    segments = Segments(paragraphs)
    found = list(segments)
    assert [paragraph for _, paragraph in found] == [paragraph for paragraph in paragraphs if paragraph]
    joined = "".join(paragraph or "|" for paragraph in paragraphs)
    while "||" in joined:
        joined = joined.replace("||", "|")
    expected = joined.split("|")
    assert segments.count == len(expected)
    assert [[p for number, p in found if number == i] for i in range(segments.count)] == [list(s) for s in expected]
