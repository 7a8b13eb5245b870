from datetime import timedelta

from server.jobs.patience import LONGEST_PAUSE_S, Patience


class Clock:
    """A clock that goes on by one second at each look, or by what it is told."""

    def __init__(self) -> None:
        self.passes, self.time = 1.0, 100.0

    def __call__(self) -> float:
        self.time += self.passes
        return self.time


def test_each_is_waited_for_from_the_first_look_that_names_it() -> None:
    patience = Patience(Clock())
    assert patience.look(["a"]) == {"a": timedelta()}
    assert patience.look(["a", "b"]) == {"a": timedelta(seconds=1), "b": timedelta()}
    assert patience.look(["b"]) == {"b": timedelta(seconds=1)}
    assert patience.look(["a", "b"]) == {"a": timedelta(), "b": timedelta(seconds=2)}


def test_the_next_server_begins_anew() -> None:
    clock = Clock()
    patience = Patience(clock)
    patience.look(["a"])
    assert patience.look(["a"]) == {"a": timedelta(seconds=1)}
    assert Patience(clock).look(["a"]) == {"a": timedelta()}


def test_the_time_in_which_the_server_itself_stood_still_does_not_count() -> None:
    clock = Clock()
    patience = Patience(clock)
    patience.look(["a"])
    clock.passes = 3600.0
    assert patience.look(["a"]) == {"a": timedelta(seconds=LONGEST_PAUSE_S)}
