from pathlib import Path
from typing import Any

import pytest

from tests.workers.checkpoints.trained import draft, trained, write, write_format_1
from workers.checkpoints.retention import Found, State, look, superseded
from workers.checkpoints.save import save, state_of
from workers.contract.records import EvaluationRecord
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.spec.checkpoint import Checkpoint

SOUND, UNSOUND, UNREADABLE, UNFINISHED = State


def after(*found: tuple[int, int, State], **spec: Any) -> list[tuple[int, int]]:
    """Which checkpoints, each an attempt, a step and a state, stay when the last of them was just written."""
    known = {CheckpointName(step, attempt): Found(state) for attempt, step, state in found}
    gone = superseded(known, CheckpointName(found[-1][1], found[-1][0]), Checkpoint(**{"keep": 2} | spec))
    return [(attempt, step) for attempt, step, _ in found if CheckpointName(step, attempt) not in gone]


def after_judging(*judged: tuple[int, int | None, float | None], **spec: Any) -> list[int]:
    """Which of these checkpoints stay: a step, the phase in which it was judged, and the loss."""
    known = {CheckpointName(step, 1): Found(SOUND, phase, loss) for step, phase, loss in judged}
    gone = superseded(known, max(known), Checkpoint(**{"keep": 1} | spec))
    return [name.step for name in known if name not in gone]


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


def test_one_of_every_so_many_stays_for_good() -> None:
    found = [(1, step, SOUND) for step in range(10, 130, 10)]
    assert after(*found, every_steps=10, keep_every=4, keep=1) == [(1, 40), (1, 80), (1, 120)]
    assert after(*found, every_steps=10, keep_every=4, keep=2) == [(1, 40), (1, 80), (1, 110), (1, 120)]


def test_the_best_of_each_phase_stays_for_good() -> None:
    first, second = [(1, 0, 3.0), (2, 0, 2.0), (3, 0, 2.5)], [(4, 1, 2.9), (5, 1, 2.8), (6, 1, 2.9)]
    assert after_judging(*first, *second) == [2, 5, 6]
    assert after_judging(*first, *second, keep_best=False) == [6]


def test_of_two_that_are_equally_good_the_older_is_the_best() -> None:
    assert after_judging((1, 0, 2.0), (2, 0, 2.0), (3, 0, 2.1)) == [1, 3]


def test_one_that_was_not_judged_or_whose_loss_was_not_finite_is_not_the_best() -> None:
    assert after_judging((1, None, None), (2, 0, None), (3, 0, 9.0), (4, None, None)) == [3, 4]


def test_an_unreadable_one_goes_though_an_older_one_stays_for_good() -> None:
    found = [(1, 10, SOUND), (1, 20, UNREADABLE), (1, 30, SOUND), (1, 40, SOUND), (1, 50, SOUND)]
    assert after(*found, every_steps=10, keep_every=1, keep=1) == [(1, 10), (1, 30), (1, 40), (1, 50)]


@pytest.mark.usefixtures("alone")
def test_the_state_of_each_is_read_from_its_manifest(tmp_path: Path) -> None:
    write_format_1(tmp_path, 1)
    write(tmp_path, 2)
    write(tmp_path, 3, is_sound=False)
    (write(tmp_path, 4) / "manifest.json").write_text("")
    (write(tmp_path, 5) / "manifest.json").unlink()
    found = {name.step: found.state for name, found in look(RunFolder(tmp_path)).items()}
    assert found == {1: SOUND, 2: SOUND, 3: UNSOUND, 4: UNREADABLE, 5: UNFINISHED}


EVALUATION = EvaluationRecord(
    step=7,
    attempt=1,
    phase=2,
    seq_len=32,
    rows=1,
    masked=1,
    mlm_loss=1.5,
    mlm_accuracy=None,
    perplexity=None,
    nsp_loss=None,
    nsp_accuracy=None,
    seconds=1.0,
)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("step", "expected"), [(7, Found(SOUND, 2, 1.5)), (8, Found(SOUND))])
def test_an_evaluation_counts_for_the_checkpoint_of_its_own_step(tmp_path: Path, step: int, expected: Found) -> None:
    model, optimizer = trained()
    save(RunFolder(tmp_path), draft(step, evaluation=EVALUATION), state_of(model, optimizer))
    assert look(RunFolder(tmp_path)) == {CheckpointName(step, 1): expected}
