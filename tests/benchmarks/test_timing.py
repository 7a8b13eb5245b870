from benchmarks.timing import WARM_UP, in_turns


def test_steps_take_turns_in_one_order_and_the_first_turns_are_not_counted() -> None:
    calls: list[str] = []
    taken = in_turns([lambda: calls.append("a"), lambda: calls.append("b")], 3, before=lambda: calls.append("-"))
    assert "".join(calls) == "-a-b" * (WARM_UP + 3)
    assert [len(row) for row in taken] == [3, 3]
