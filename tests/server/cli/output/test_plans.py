import io

import pytest
from rich.console import Console
from rich.table import Table

from server.cli.output.plans import exchanges_table, in_units, phases_table, stages_table, verdict
from tests.workers.planning.planned import make_spec
from workers.planning.plan import plan

PHASES = [
    {"seq_len": 16, "global_batch_size": 64, "micro_batch_size": 4, "steps": 30, "lr": 1e-3},
    {"seq_len": 32, "global_batch_size": 32, "micro_batch_size": 2, "steps": 10, "lr": 1e-3},
]
PLAN = plan(make_spec(2, 1, phases=PHASES), memory_bytes=10**9)


def lines(table: Table) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=1000)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1340, "1.34 kB"), (1.34e10, "13.4 GB"), (7.25e14, "725 TB")]
)
def test_bytes_have_three_digits(size: float, text: str) -> None:
    assert in_units(size) == text


def test_phases_are_summed_where_there_are_several() -> None:
    assert lines(phases_table(PLAN))[1:] == [
        ["0", "16", "64", "4", "8", "30", "30,720", "-", "-"],
        ["1", "32", "32", "2", "8", "10", "10,240", "-", "-"],
        ["all", "40", "40,960", "-", "-"],
    ]
    assert len(lines(phases_table(plan(make_spec())))) == 2


def test_the_stage_of_the_job_is_marked_and_each_says_whether_it_fits() -> None:
    rows = lines(stages_table(PLAN))[1:]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert [row[1] == "*" for row in rows] == [False, True, False, False]
    assert [row[-1] for row in rows] == ["yes"] * 4


def test_collectives_stand_with_their_ranks_and_calls() -> None:
    assert [row[:4] for row in lines(exchanges_table(PLAN.phases[0]))[1:]] == [
        ["all-gather", "weights", "2", "4"],
        ["reduce-scatter", "gradients", "2", "4"],
        ["all-reduce", "norms", "2", "2"],
        ["all-reduce", "counts", "2", "1"],
    ]


def test_without_a_memory_there_is_no_verdict() -> None:
    assert list(verdict(plan(make_spec()))) == []
    (line,) = verdict(PLAN)
    assert line.startswith("It fits: ")
    assert line.endswith("and 900 MB are available (90% of 1.00 GB).")


def test_what_would_make_a_job_fit_is_printed_as_options() -> None:
    tight = plan(make_spec(2, 1, phases=PHASES), memory_bytes=int(0.95 * PLAN.stages[1].memory_bytes / 0.9))
    first, heading, *options = verdict(tight)
    assert first.startswith("It does not fit: ")
    assert heading == "It would fit with any one of these:"
    assert len(options) == len(tight.remedies) > 1
    assert all(" with --set " in option for option in options)
