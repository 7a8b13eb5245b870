import json
from pathlib import Path

import pytest

from benchmarks.intervals import Interval, common_s, total_s, united
from benchmarks.two_workers import overlap

SOME = [Interval(0, 2), Interval(1, 3), Interval(5, 6)]


def test_stretches_that_touch_or_overlap_count_once() -> None:
    assert united([*SOME, Interval(3, 4)]) == [(0, 4), (5, 6)]
    assert total_s(SOME) == 4
    assert total_s([]) == 0


def test_what_two_have_in_common_is_where_both_are() -> None:
    assert common_s(SOME, [Interval(2.5, 5.5)]) == 1
    assert common_s(SOME, [Interval(3, 5)]) == 0


def test_of_a_trace_the_collectives_count_beside_which_the_rank_computed(tmp_path: Path) -> None:
    def event(name: str, begin: int, end: int) -> dict[str, object]:
        return {"ph": "X", "name": name, "ts": begin * 1_000_000, "dur": (end - begin) * 1_000_000}

    computing = [event("aten::mm", 0, 4), event("aten::addmm", 0, 3), event("FSDP::all_gather", 4, 9)]
    collectives = [event("gloo:all_reduce", 2, 6), event("gloo:all_gather", 6, 7)]
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"traceEvents": [*computing, *collectives, {"ph": "M", "name": "gloo:thread"}]}))
    assert overlap(trace) == pytest.approx((5, 2))
