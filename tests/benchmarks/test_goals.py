import pytest

from benchmarks.contenders import TIMM_LAMB, WHOLE
from benchmarks.goals import goals
from benchmarks.results import Report, Setting, result
from tests.benchmarks.rows import MACHINE, made_up


def test_a_run_is_held_against_the_goals_and_says_by_how_much_it_misses_them() -> None:
    held = [(goal.text, goal.limit, round(goal.figure, 3), goal.verdict) for goal in goals(made_up())]
    assert held == [
        ("bigbatch Lamb ÷ torch AdamW fused, bert-base, 1 thread", 1.4, 1.5, "missed by 7%"),
        ("torch_optimizer Lamb ÷ ours, bert-base, 1 thread", 6, 6.0, "reached"),
        ("pytorch_optimizer Lamb ÷ ours, bert-base, 1 thread", 5, 4.0, "missed by 20%"),
        ("temporaries, bytes a tensor, bert-base, 1 thread", 1024, 53.45, "reached"),
        ("2 ranks ÷ their part of one rank's step, bert-base, 1 thread each", 1.15, 1.067, "reached"),
    ]


def test_what_bounds_a_goal_is_said_beside_it() -> None:
    first, *_, last = goals(made_up())
    assert first.bound.startswith("moves 1.00 times the bytes, at ")
    assert first.bound.endswith("; clipped, which Lamb does too, AdamW takes 1.40")
    assert "moves 1.00 times our bytes; it takes 9.00 of AdamW" in [goal.bound for goal in goals(made_up())]
    assert last.bound == "torch AdamW fused reaches 1.20"


@pytest.mark.parametrize(
    ("models", "held"), [(("bert-base", "bert-large"), "bert-base"), (("bert-tiny",), "bert-tiny")]
)
def test_the_goals_are_for_bert_base_where_it_was_measured(models: tuple[str, ...], held: str) -> None:
    rows = [row for model in models for row in made_up(model).results]
    assert all(held in goal.text for goal in goals(Report(MACHINE, rows, [])))


def test_plain_pytorch_by_whole_tensors_is_held_against_timm_where_both_were_measured() -> None:
    run = made_up()
    one = Setting("bert-base", 1, 1, 1)
    run.results.extend(
        result(one, name, [seconds], [1.0], [0.5], moved, 8)
        for name, seconds, moved in ((f"{WHOLE}, float32 sums", 5.5, 128), (TIMM_LAMB, 5.0, 144))
    )
    found = next(goal for goal in goals(run) if goal.text.startswith(WHOLE))
    assert (found.limit, round(found.figure, 3), found.verdict) == (1, 1.1, "missed by 10%")
    assert found.bound == "moves 0.89 times its bytes"
