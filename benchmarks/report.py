"""A run that was written with --json, as the tables and the picture of docs/optimizer.md.

    python benchmarks/report.py docs/optimizer.json

writes the picture beside the JSON file, as .svg, and the tables into the .md beside it, between the two marks that
it has: what stands before and after them is written by hand and stays.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

from benchmarks.goals import goals
from benchmarks.results import Machine, Report, Result
from benchmarks.tables import aligned, tables

BEGIN, END = "<!-- measured: written by benchmarks/report.py -->", "<!-- /measured -->"


def read(file: Path) -> Report:
    """Return the run that a JSON file of benchmarks/optimizer.py holds.

    Raises:
        ValueError: it is no such file, or one of another version of the program.
    """
    try:
        document = json.loads(file.read_text())
        results = [Result(**result) for result in document["results"]]
        return Report(Machine(**document["machine"]), results, document["left_out"])
    except (KeyError, TypeError, json.JSONDecodeError) as problem:
        raise ValueError(f"{file}: {problem!r}; write it anew with benchmarks/optimizer.py --json {file}") from problem


def section(report: Report, picture: str) -> str:
    """Return what stands between the marks."""
    lines = [
        (goal.text, f"{'≥' if goal.at_least else '≤'} {goal.limit:g}", f"{goal.figure:.2f}", goal.verdict, goal.bound)
        for goal in goals(report)
    ]
    held = aligned(["goal", "limit", "measured", "verdict", "what bounds it"], lines)
    return f"{BEGIN}\n\n## Goals\n\n{held}\n\n![steps compared]({picture})\n\n## Figures\n\n{tables(report)}\n\n{END}"


def insert(text: str, measured: str) -> str:
    """Return a document with a section exchanged, or put at its end if it has none.

    The marks are the first and the last line of the section.
    """
    first, *_, last = measured.splitlines()
    before, begin, rest = text.partition(first)
    if not begin:
        before, rest = f"{before.rstrip()}\n\n".lstrip(), f"{last}\n"
    return before + measured + rest.partition(last)[2]


def main() -> None:
    """Write picture and tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, metavar="FILE", help="what benchmarks/optimizer.py --json FILE wrote")
    file: Path = parser.parse_args().json
    try:
        report = read(file)
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    try:
        from benchmarks.plot import draw
    except ModuleNotFoundError as problem:
        parser.error(f"{problem}; get it with: pip install --constraint constraints.txt --group bench")
    page, picture = file.with_suffix(".md"), file.with_suffix(".svg")
    draw(report, picture)
    text = page.read_text() if page.exists() else ""
    page.write_text(insert(text, section(report, picture.name)))


if __name__ == "__main__":
    main()
