from pathlib import Path

import pytest

from tests.workers.checkpoints.trained import write, write_format_1
from workers.checkpoints.retention import State, states, superseded
from workers.contract.run.folder import CheckpointName, RunFolder

SOUND, UNSOUND, UNREADABLE, UNFINISHED = State


def after(*found: tuple[int, int, State], keep: int = 2) -> list[tuple[int, int]]:
    """Which checkpoints, each an attempt, a step and a state, stay when the last of them was just written."""
    known = {CheckpointName(step, attempt): state for attempt, step, state in found}
    gone = superseded(known, CheckpointName(found[-1][1], found[-1][0]), keep)
    return [(attempt, step) for attempt, step, _ in found if CheckpointName(step, attempt) not in gone]


def test_the_newest_stay() -> None:
    assert after((1, 1, SOUND), (1, 2, SOUND), (1, 3, SOUND), (1, 4, SOUND)) == [(1, 3), (1, 4)]
    assert after((1, 1, SOUND), (1, 2, SOUND)) == [(1, 1), (1, 2)]


def test_those_of_a_run_that_diverges_displace_none_of_the_good_ones() -> None:
    good = [(1, 1, SOUND), (1, 2, SOUND), (1, 3, SOUND)]
    bad = [(1, step, UNSOUND) for step in range(4, 9)]
    assert after(*good, *bad) == [(1, 2), (1, 3), (1, 7), (1, 8)]


def test_once_the_run_has_recovered_its_good_ones_displace_older_good_ones() -> None:
    assert after((1, 1, SOUND), (1, 2, UNSOUND), (1, 3, SOUND), (1, 4, SOUND)) == [(1, 2), (1, 3), (1, 4)]


def test_what_was_left_unfinished_goes_at_once() -> None:
    assert after((1, 1, SOUND), (1, 9, UNFINISHED), (2, 2, UNFINISHED), (2, 3, SOUND)) == [(1, 1), (2, 3)]


def test_a_later_attempts_checkpoints_are_left_alone_and_do_not_count() -> None:
    found = [(3, 1, UNFINISHED), (3, 2, SOUND), (3, 3, SOUND), (1, 1, SOUND), (1, 2, SOUND)]
    assert after(*found) == [(3, 1), (3, 2), (3, 3), (1, 1), (1, 2)]


def test_steps_ahead_that_this_attempt_could_not_use_do_not_displace_what_it_writes() -> None:
    """The same attempt was started again by hand, and went back to step 1 because those of 5 to 7 were damaged."""
    ahead = [(1, 5, SOUND), (1, 6, SOUND), (1, 7, SOUND)]
    assert after(*ahead, (1, 1, SOUND), (1, 2, SOUND)) == [(1, 5), (1, 6), (1, 7), (1, 1), (1, 2)]


def test_an_earlier_attempts_later_steps_are_older() -> None:
    assert after((1, 500, SOUND), (2, 210, SOUND), (2, 220, SOUND)) == [(2, 210), (2, 220)]


def test_an_unreadable_one_stays_until_it_is_older_than_all_that_stay() -> None:
    assert after((1, 1, SOUND), (1, 2, UNREADABLE), (1, 3, SOUND)) == [(1, 1), (1, 2), (1, 3)]
    assert after((1, 1, SOUND), (1, 2, UNREADABLE), (1, 3, SOUND), (1, 4, SOUND)) == [(1, 3), (1, 4)]


@pytest.mark.usefixtures("alone")
def test_the_state_of_each_is_read_from_its_manifest(tmp_path: Path) -> None:
    write_format_1(tmp_path, 1)
    write(tmp_path, 2)
    write(tmp_path, 3, is_sound=False)
    (write(tmp_path, 4).path / "manifest.json").write_text("")
    (write(tmp_path, 5).path / "manifest.json").unlink()
    found = {name.step: state for name, state in states(RunFolder(tmp_path)).items()}
    assert found == {1: SOUND, 2: SOUND, 3: UNSOUND, 4: UNREADABLE, 5: UNFINISHED}
