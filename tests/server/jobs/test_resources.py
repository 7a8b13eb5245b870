import pytest

from server.jobs.resources import Resources


@pytest.mark.parametrize(("need", "fits"), [(Resources(2), True), (Resources(3), False), (Resources(1, 1), False)])
def test_resources_fit_when_each_kind_does(need: Resources, fits: bool) -> None:
    assert need.fit(Resources(cpus=2)) is fits


def test_resources_are_added_subtracted_and_multiplied_by_kind() -> None:
    worker = Resources(cpus=2, gpus=1)
    assert worker * 3 == worker + worker + worker == Resources(6, 3)
    assert worker * 3 - worker == worker * 2


def test_resources_are_written_in_words() -> None:
    assert [str(each) for each in (Resources(1), Resources(2), Resources(4, 1))] == [
        "1 CPU",
        "2 CPUs",
        "4 CPUs and 1 GPU",
    ]
