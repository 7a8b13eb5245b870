from benchmarks.scaling.report import ADAMW, BEGIN, END, LAMB, PAPER, SEARCHED, cells, section
from tests.benchmarks.scaling.rows import made_up


def line(text: str, *begin: str) -> list[str]:
    """Return the cells of the first line of a table that begins with these."""
    found = ([cell.strip() for cell in each.split("|")[1:-1]] for each in text.splitlines() if each.startswith("|"))
    return next(each for each in found if each[: len(begin)] == list(begin))


def test_a_contender_has_its_loss_for_each_seed_and_the_mean_of_all() -> None:
    text = section(made_up(), "runs.svg")
    assert text.startswith(BEGIN)
    assert text.endswith(END)
    assert "](runs.svg)" in text
    assert line(text, LAMB, "64") == [LAMB, "64", "180", "0.02", "5.00%", "6.250", "6.350", "6.300"]


def test_what_is_not_done_is_left_empty_and_named() -> None:
    text = section(made_up(), "runs.svg")
    assert line(text, LAMB, "256") == [LAMB, "256", "45", "0.04", "20.00%", "6.750", "", ""]
    assert line(text, SEARCHED, "256") == [SEARCHED, "256", "45", "", "", "", "", ""]
    missing = next(each for each in text.splitlines() if each.startswith("Not done yet: "))
    assert f"{LAMB} at 64" not in missing
    assert f"{LAMB} at 256 (1 of 2 seeds)" in missing
    assert f"{PAPER} at 64;" in missing


def test_every_run_is_listed_and_one_that_diverged_is_called_so() -> None:
    text = section(made_up(), "runs.svg")
    assert line(text, "lamb", "64", "0.04") == ["lamb", "64", "0.04", "5.00%", "0", "180", "diverged", ""]
    assert sum(each.startswith(("| lamb ", "| adamw ")) for each in text.splitlines()) == len(made_up().results)


def test_the_contenders_are_compared_at_every_batch() -> None:
    compared = [(cell.contender, cell.batch) for cell in cells(made_up())]
    assert compared == [(contender, batch) for contender in (LAMB, ADAMW, SEARCHED, PAPER) for batch in (64, 256)]
