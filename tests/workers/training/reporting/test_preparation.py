import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workers.small_job import PHASE, document
from workers.contract.documents import parse_spec
from workers.contract.records import AlertRecord, LogRecord, Record
from workers.contract.run.folder import RunFolder
from workers.contract.spec.job import JobSpec
from workers.corpus.prepare import prepare
from workers.samples.dataset import open_phase
from workers.training.reporting.preparation import describe, waiting_to
from workers.training.reporting.progress import progress_to
from workers.training.reporting.reporter import Reporter

Write = Callable[..., str]
TEXT = "\n\n".join(f"The {word} is old. It is very red. We see it here." for word in ["door", "ferry", "bell"] * 30)


def reported(spec: JobSpec, folder: Path) -> list[Record]:
    """Prepare the text of a job as a run does; return what it reported."""
    records: list[Record] = []
    reporter = Reporter(RunFolder(folder / "run"), on_record=records.append)
    describe(spec, prepare(spec.data, folder / "data", progress_to(reporter)), reporter)
    reporter.close()
    return records


def job(text: str, **data: Any) -> JobSpec:
    document_ = document(Path(text))
    return parse_spec(document_ | {"data": document_["data"] | {"vocab": 50} | data})


def logs(records: list[Record]) -> list[str]:
    return [record.text for record in records if isinstance(record, LogRecord)]


def alerts(records: list[Record]) -> list[str]:
    return [f"{record.level}: {record.title}" for record in records if isinstance(record, AlertRecord)]


def test_a_sound_text_is_summed_up_in_one_line_and_raises_no_alert(write_text: Write, tmp_path: Path) -> None:
    records = reported(job(write_text(TEXT)), tmp_path)
    assert alerts(records) == []
    *stages, summary = logs(records)
    assert stages == [
        "text: learning the vocabulary",
        "text: tokenizing",
        "text: finding rows of 32 tokens",
    ]
    assert summary.startswith("text: 1 file, 90 documents, 270 sentences, 1,470 tokens; vocabulary: ")
    assert "50 tokens of 50 asked for, lower case, accents and other combining marks removed; 0.00% [UNK]; " in summary
    assert "; phases[0]: 90 rows of 32 tokens, " in summary


def test_a_text_that_was_prepared_before_is_summed_up_without_stages(write_text: Write, tmp_path: Path) -> None:
    spec = job(write_text(TEXT))
    open_phase(prepare(spec.data, tmp_path / "data"), spec, spec.phases[0])
    assert len(logs(reported(spec, tmp_path))) == 1


def test_files_that_are_left_out_are_counted_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT)
    (folder / "notes.md").touch()
    for number in range(30):
        (folder / f".{number:02}").touch()
    *_, summary, left_out = logs(reported(job(str(folder)), tmp_path))
    assert "1 file (31 left out)" in summary
    assert f"{folder}/.00 (hidden)" in left_out
    assert left_out.endswith(" and 11 more")


@pytest.mark.parametrize(
    ("text", "data", "alert"),
    [
        (TEXT, {"vocab": 5000}, r"warning: The vocabulary has \d+ tokens, 5,000 were asked for"),
        (
            TEXT[:300],
            {"vocab": 50},
            r"warning: phases\[0\]: the text gives 6 rows of 32 tokens, fewer than a global",
        ),
        (TEXT.replace("\n\n", "\n"), {}, r"warning: The text is a single document, so next-sentence prediction learns"),
        (TEXT.replace(". ", ".\n\n"), {}, r"warning: 100\.0% of the second segments are random; next-sentence"),
    ],
    ids=["vocabulary", "batch", "one document", "one sentence a document"],
)
def test_what_will_surprise_is_told_before_the_first_step(
    write_text: Write, tmp_path: Path, text: str, data: dict[str, Any], alert: str
) -> None:
    found = alerts(reported(job(write_text(text), **data), tmp_path))
    assert len(found) == 1
    assert re.match(alert, found[0])


def test_more_than_five_per_cent_of_unknown_tokens_are_warned_of(write_text: Write, tmp_path: Path) -> None:
    pieces = sorted({*TEXT.lower()} - {" ", "\n"})
    tokens = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    good = write_text("\n".join(tokens), "good.txt")
    poor = write_text("\n".join(token for token in tokens if token != "##e"), "poor.txt")
    spec = job(write_text(TEXT), vocab=good)
    assert alerts(reported(spec, tmp_path / "good")) == []
    (alert,) = alerts(reported(job(write_text(TEXT), vocab=poor), tmp_path / "poor"))
    assert re.match(r"warning: [\d.]+% of the tokens are \[UNK\]", alert)


def test_every_phase_is_described(write_text: Write, tmp_path: Path) -> None:
    spec = parse_spec(document(Path(write_text(TEXT)), phases=[PHASE, PHASE | {"seq_len": 16}]))
    summary = logs(reported(spec, tmp_path))[-1]
    assert "phases[0]: 90 rows of 32 tokens" in summary
    assert "phases[1]: " in summary
    assert "rows of 16 tokens" in summary


def test_the_machines_that_are_waited_for_are_named_at_once_and_not_every_second(tmp_path: Path) -> None:
    records: list[Record] = []
    reporter = Reporter(RunFolder(tmp_path), on_record=records.append)
    waiting = waiting_to(reporter, ["a", "b", "b", "c"])
    waiting([1, 2, 3])
    waiting([3])
    reporter.close()
    assert logs(records) == ["text: ready here; waiting until it is prepared on b, c"]


def test_held_out_text_is_summed_up_with_the_rows_that_it_gives_each_phase(write_text: Write, tmp_path: Path) -> None:
    apart = write_text("\n\n".join(["The door is red. We see it."] * 7), "apart.txt")
    records = reported(job(write_text(TEXT), validation=[apart]), tmp_path)
    assert alerts(records) == []
    assert logs(records)[-1] == (
        "held-out text: 7 documents, 70 tokens; 0.00% [UNK]; phases[0]: 7 rows of 10,000 asked for, which is all"
    )


def test_held_out_text_whose_figures_say_little_is_warned_of(write_text: Write, tmp_path: Path) -> None:
    apart = write_text("Ω Ω Ω Ω. Ж Ж Ж Ж.\nThe door is red.", "apart.txt")
    found = alerts(reported(job(write_text(TEXT), validation=[apart]), tmp_path))
    assert re.fullmatch(r"warning: \d\d\.\d% of the tokens of the held-out text are \[UNK\]", found[0])
    assert found[1] == "warning: The held-out text is a single document, so its NSP accuracy says nothing"
    without = job(write_text(TEXT), validation=[apart], next_sentence=False)
    assert alerts(reported(without, tmp_path))[-1] == found[0]
