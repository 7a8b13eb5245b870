from workers.contract.phases import PhaseWindow, phase_windows
from workers.contract.spec.phase import Phase


def phase(steps: int, global_batch_size: int) -> Phase:
    return Phase(seq_len=32, global_batch_size=global_batch_size, micro_batch_size=1, steps=steps, lr=1.0)


def windows() -> list[PhaseWindow]:
    return phase_windows([phase(3, 8), phase(2, 4), phase(1, 2)])


def test_a_phase_begins_where_the_one_before_it_ends() -> None:
    assert [(w.index, w.steps_before, w.rows_before) for w in windows()] == [(0, 0, 0), (1, 3, 24), (2, 5, 32)]


def test_each_step_belongs_to_one_phase_and_each_row_to_one_step() -> None:
    steps = [step for window in windows() for step in window.steps_after(0)]
    assert steps == [1, 2, 3, 4, 5, 6]
    rows = [
        row
        for window in windows()
        for step in window.steps_after(0)
        for row in range(window.first_row(step), window.first_row(step) + window.phase.global_batch_size)
    ]
    assert rows == list(range(34))


def test_only_the_steps_behind_those_done_are_left() -> None:
    assert [list(window.steps_after(4)) for window in windows()] == [[], [5], [6]]
    assert [window.last_step for window in windows()] == [3, 5, 6]
