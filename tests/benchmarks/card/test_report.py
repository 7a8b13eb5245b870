import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.card.report import OURS, PLAIN, Profiled, Report, Row, read, text
from benchmarks.card.traced import Line, Profile
from benchmarks.card.walk import Station

PROFILE = Profile(4, 12.0, 6.0, 100.0, (Line("cudaStreamSynchronize < aten::item", 2.0, 3.0),), (), ())


def row(model: str, seq_len: int, name: str, tokens_per_s: float) -> Row:
    return Row(model, seq_len, 64, 4, name, tokens_per_s, tokens_per_s * 1e9, 800e12, 2**31)


ROWS = [
    row("bert-base-uncased", 128, PLAIN, 400_000),
    row("bert-base-uncased", 512, PLAIN, 300_000),
    row("bert-base-uncased", 128, OURS, 600_000),
    row("bert-large-uncased", 128, OURS, 300_000),
    row("bert-large-uncased", 128, PLAIN, 250_000),
]
REPORT = Report(
    "a card", [Station("resume", 2.0, "steps 6 to 60")], ROWS, [Profiled("bert-base-uncased", 128, PROFILE)], ["why"]
)


def lines(begin: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text(REPORT).splitlines()
        if line.startswith(f"| {begin}")
    ]


def test_each_goal_stands_beside_its_figure_and_where_a_part_is_missing_there_is_no_goal() -> None:
    over, of_matrix = f"{OURS} ÷ {PLAIN}", "useful arithmetic ÷ a matrix product"
    assert lines(OURS) == [
        [f"{over}, bert-base-uncased, 128 tokens", "1.4", "1.50", "reached"],
        [f"{over}, bert-large-uncased, 128 tokens", "1.4", "1.20", "missed by 14%"],
    ]
    assert lines("useful") == [[f"{of_matrix}, bert-large-uncased, 128 tokens", "45%", "38%", "missed by 17%"]]


def test_rows_of_one_model_and_length_stand_together_beside_plain_transformers() -> None:
    found = [[model, length, name, ratio] for model, length, _, name, _, ratio, *_ in lines("bert")]
    assert found == [
        ["bert-base-uncased", "128", PLAIN, "1.00"],
        ["bert-base-uncased", "128", OURS, "1.50"],
        ["bert-base-uncased", "512", PLAIN, "1.00"],
        ["bert-large-uncased", "128", OURS, "1.20"],
        ["bert-large-uncased", "128", PLAIN, "1.00"],
    ]


def test_the_path_the_profile_and_what_was_left_out_are_in_the_text() -> None:
    assert lines("resume") == [["resume", "2.0", "steps 6 to 60"]]
    assert lines("cudaStreamSynchronize") == [["cudaStreamSynchronize < aten::item", "2.0", "3.00"]]
    assert "12.0 ms, the GPU worked in 6.0 ms of it; 100 launches." in text(REPORT)
    assert text(REPORT).endswith("* why\n")


def test_what_was_measured_until_a_program_was_ended_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert read(file) == ([], [])
    results: list[Row | Profiled] = [*ROWS, *REPORT.profiles]
    file.write_text("".join(json.dumps({type(each).__name__: asdict(each)}) + "\n" for each in results))
    assert read(file) == (ROWS, REPORT.profiles)
