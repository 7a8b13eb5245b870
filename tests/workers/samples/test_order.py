import numpy as np
import pytest

from workers.samples.order import permute


def order(seed: int, epoch: int, n: int) -> list[int]:
    found: list[int] = permute(seed, np.full(n, epoch), np.arange(n), n).tolist()
    return found


@pytest.mark.parametrize("n", [*range(1, 70), 1000, 1024, 1025, 65_536])
def test_an_epoch_visits_each_row_once(n: int) -> None:
    assert sorted(order(3, 5, n)) == list(range(n))


def test_an_entry_does_not_depend_on_what_is_asked_beside_it() -> None:
    whole = order(1, 2, 1000)
    alone = [permute(1, np.array([2]), np.array([place]), 1000).item() for place in range(1000)]
    mixed = permute(1, np.array([0, 2, 7, 2]), np.array([5, 5, 5, 999]), 1000)
    assert whole == alone
    assert (mixed[1], mixed[3]) == (whole[5], whole[999])


def test_no_two_epochs_and_no_two_seeds_are_alike() -> None:
    n = 5000
    orders = np.array(
        [order(seed, epoch, n) for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2**64 - 1, 0)]]
    )
    for number, first in enumerate(orders):
        for second in orders[:number]:
            assert (first == second).mean() < 5 / n + 0.001  # by chance one place agrees
            assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(n)


@pytest.mark.parametrize("n", [5, 16, 100])
def test_a_row_stands_at_every_place_equally_often_and_before_its_neighbour_half_of_the_time(n: int) -> None:
    epochs = 20_000
    places = permute(0, np.arange(epochs).repeat(n), np.tile(np.arange(n), epochs), n).reshape(epochs, n)
    counts = np.array([np.bincount(column, minlength=n) for column in places.T])
    expected = epochs / n
    assert ((counts - expected) ** 2 / expected).sum() / n**2 < 1 + 6 * np.sqrt(2) / n
    steps = np.diff(places, axis=1)
    assert abs((steps > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(epochs)
    follows = (steps == 1).mean()
    assert abs(follows - 1 / n) < 5 * np.sqrt(1 / n / epochs)


def test_any_row_of_a_huge_epoch_is_found_at_once() -> None:
    n = 3 * 10**12
    place = np.arange(0, n, n // 1000)
    found = permute(0, np.zeros_like(place), place, n)
    assert ((found >= 0) & (found < n)).all()
    assert len(set(found.tolist())) == len(place)
    assert abs(found.mean() / n - 0.5) < 5 / np.sqrt(12 * len(place))
