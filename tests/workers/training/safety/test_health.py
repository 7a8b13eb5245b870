from workers.training.safety.health import Health


def window(health: Health, *losses: float | None) -> bool:
    """Observe steps, those without a loss as skipped ones, and close the window."""
    for loss in losses:
        health.observe(loss, skipped=loss is None)
    return health.close_window()


def test_a_loss_that_falls_or_wavers_is_in_good_order() -> None:
    health = Health()
    assert [window(health, loss) for loss in (10.0, 7.0, 7.3, 2.0, 2.3)] == [True] * 5
    assert health.best_loss == 2.0


def test_a_loss_far_above_the_lowest_is_not_and_does_not_become_the_measure() -> None:
    health = Health()
    assert window(health, 2.0, 2.0)
    assert not window(health, 2.5, 2.5)
    assert not window(health, 7.0, 7.2)
    assert health.best_loss == 2.0
    assert window(health, 2.1)


def test_a_single_bad_step_between_good_ones_does_not_count() -> None:
    health = Health()
    assert window(health, *[2.0] * 50)
    assert window(health, *[2.0] * 49, 9.0)


def test_a_checkpoint_within_a_row_of_skipped_steps_is_not_in_good_order() -> None:
    health = Health()
    assert not window(health, 2.0, None)
    assert health.bad_in_a_row == 1
    assert not window(health, None, None)
    assert health.bad_in_a_row == 3
    assert window(health, None, 2.0)
    assert health.bad_in_a_row == 0


def test_each_window_is_judged_by_its_own_steps_and_the_best_of_an_earlier_attempt() -> None:
    health = Health()
    health.best_loss = 3.0
    assert not window(health, 4.0)
    assert window(health, 3.5)
    assert not health.close_window()


def test_a_loss_that_is_not_finite_is_bad_where_its_gradient_was_finite_too() -> None:
    health = Health()
    for _ in range(3):
        health.observe(None, skipped=False)
    assert health.bad_in_a_row == 3
    assert not health.close_window()
    health.observe(2.0, skipped=False)
    assert health.bad_in_a_row == 0
