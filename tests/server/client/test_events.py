import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.client.events import Event, parse_events

EVENTS = [
    Event("status", 1, {"status": "RUNNING"}),
    Event("step", 2, {"step": 1, "loss": 7.5}),
    Event("log", 3, {"text": "a line separator \u2028 and an accent é"}),
    Event("status", None, {"status": "STOPPING"}),
    Event("end", None, {}),
]


def _wire(events: list[Event], newline: str = "\n") -> str:
    blocks = [": keep-alive", ""]
    for event in events:
        blocks += [f"id: {event.id}"] if event.id is not None else []
        blocks += [f"event: {event.name}", f"data: {json.dumps(event.data, ensure_ascii=False)}", ""]
    return newline.join([*blocks, ""])


@given(cuts=st.lists(st.integers(0, 400), max_size=8), newline=st.sampled_from(["\n", "\r\n"]))
def test_events_are_the_same_however_the_network_cuts_them(cuts: list[int], newline: str) -> None:
    text = _wire(EVENTS, newline)
    edges = [0, *sorted(cuts), len(text)]
    chunks = [text[begin:end] for begin, end in pairwise(edges)]
    assert list(parse_events(chunks)) == EVENTS


def test_an_event_that_was_cut_off_is_not_delivered() -> None:
    text = _wire(EVENTS[:2])
    assert list(parse_events([text[:-2]])) == EVENTS[:1]
