from benchmarks.tables import tables
from tests.benchmarks.rows import made_up


def test_each_setting_has_a_table_with_the_columns_that_it_has_figures_for() -> None:
    one, two = tables(made_up()).split("### bert-base, ")[1:]
    assert one.startswith("1 rank of 1 thread\n\n206 tensors, 110,106,428 parameters; a copy moves 1.1 GB/s.\n")
    assert "temporary B" in one
    assert "collectives" not in one
    assert "launches" not in one
    assert "÷ its part of one rank's" in two
    assert "temporary B" not in two
    assert "collectives" in two


def test_the_lines_of_a_table_are_as_long_as_each_other_and_name_each_contender() -> None:
    lines = [line for line in tables(made_up()).splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == [
        *("optimizer", ":" + "-" * 25, "torch AdamW fused", "torch AdamW fused, clipped", "bigbatch Lamb"),
        *("torch_optimizer Lamb", "pytorch_optimizer Lamb"),
        *("optimizer", ":" + "-" * 16, "torch AdamW fused", "bigbatch Lamb"),
    ]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[4].split("|")[2:5] == [" 1500.00 ", " 1500.00 to 1500.00 ", "    1.50 "]


def test_what_was_not_measured_is_said() -> None:
    assert tables(made_up()).endswith("\n\n* timm Lamb is not measured: timm is not installed")
