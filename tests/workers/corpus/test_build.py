"""What is made of a text does not depend on how it is cut, how many processes there are, or interruptions."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.workers.conftest import Data
from tests.workers.corpus.test_prepare import decode
from workers.contract.manifests import VALIDATION
from workers.contract.sources import CorpusError
from workers.corpus.prepare import prepare
from workers.corpus.reading.units import Unit
from workers.corpus.shards import Shards
from workers.corpus.work.pool import Spread, Work, alone, in_processes
from workers.corpus.work.process import WorkerError
from workers.corpus.work.tasks import Marks, Task

WORDS = [
    "tea",
    "milk",
    "bread",
    "rain",
    "snow",
    "night",
    "is",
    "are",
    "was",
    "cold",
    "hot",
    "brown",
    "falls",
    "here",
    "there",
]


def some_text(seed: int, documents: int) -> str:
    draw = random.Random(seed)

    def paragraph() -> str:
        sentences = (" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(draw.randint(1, 3)))
        return " ".join(f"{sentence.capitalize()}." for sentence in sentences)

    return "\n\n".join("\n".join(paragraph() for _ in range(draw.randint(1, 5))) for _ in range(documents))


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(some_text(number, 40) + "\n\n" + some_text(7, 8))
    return [str(tmp_path / "[0-9].txt")]


def backwards(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
    return ((number, task(*work[number])) for number in reversed(range(len(work))))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [{}, {"deduplicate": True}, {"deduplicate": True, "validation": 0.2}])
def test_the_bytes_are_the_same_whatever_the_units_and_the_processes(
    corpus: list[str], tmp_path: Path, options: dict[str, bool | float]
) -> None:
    data = Data(corpus, 80, **options)  # type: ignore[arg-type] # the names are those of its fields
    ways: list[tuple[Spread, int]] = [(alone, 2**22), (alone, 300), (backwards, 999), (partial(in_processes, 2), 3000)]
    made = [contents(prepare(data, tmp_path / f"{i}", spread=way, unit_bytes=n)) for i, (way, n) in enumerate(ways)]
    assert made[0].keys() >= {"manifest.json", "sentences.i64"}
    assert all(each == made[0] for each in made)


def test_paragraphs_that_stand_earlier_in_the_text_are_left_out(corpus: list[str], tmp_path: Path) -> None:
    lines = [line for path in sorted(tmp_path.glob("*.txt")) for line in path.read_text().split("\n") if line]
    learned = Shards(prepare(Data(corpus, 80, deduplicate=True), tmp_path / "data", unit_bytes=500))
    once = [" ".join(sentences) for sentences in decode(learned)]
    expected = " ".join(dict.fromkeys(lines)).lower().replace(".", " .")
    assert len(set(lines)) < len(lines)
    assert " ".join(once) == expected


def test_a_document_that_only_repeats_is_left_out_whole_and_the_vocabulary_does_not_count_it(tmp_path: Path) -> None:
    for name, text in (("once", "Tea is hot.\n\nRain."), ("twice", "Tea is hot.\n\nTea is hot.\nRain.\n\nRain.")):
        (tmp_path / f"{name}.txt").write_text(text)
    once, twice = (
        prepare(Data([str(tmp_path / f"{name}.txt")], 60, deduplicate=True), tmp_path) for name in ("once", "twice")
    )
    for name in ("vocab.txt", "tokens-00000.u16", "sentences.i64"):
        assert (once / name).read_bytes() == (twice / name).read_bytes()
    assert decode(Shards(twice)) == [["tea is hot ."], ["rain ."]]


def test_what_is_held_out_is_never_learned_even_where_it_repeats(corpus: list[str], tmp_path: Path) -> None:
    folder = prepare(Data(corpus, 80, deduplicate=True, validation=0.3), tmp_path / "data", unit_bytes=700)
    learned, held_out = (
        {sentence for document in decode(Shards(each)) for sentence in document}
        for each in (folder, folder / VALIDATION)
    )
    assert len(held_out) > 20
    # A sentence of one paragraph may stand in another paragraph, too; whole paragraphs may not.
    assert len(learned & held_out) < len(held_out) / 2


def stop_after(count: int, error: type[BaseException]) -> Spread:
    def spread(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
        for number, outcome in alone(task, work):
            if number == count:
                raise error
            yield number, outcome

    return spread


def counting(done: list[int]) -> Spread:
    def spread(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
        done.append(len(work))
        return alone(task, work)

    return spread


@pytest.mark.parametrize("error", [KeyboardInterrupt, WorkerError])
def test_an_interrupted_preparation_goes_on_where_it_stopped(
    corpus: list[str], tmp_path: Path, error: type[BaseException]
) -> None:
    data = Data(corpus, 80)
    expected = contents(prepare(data, tmp_path / "other", unit_bytes=1000))
    with pytest.raises(error):
        prepare(data, tmp_path / "data", spread=stop_after(7, error), unit_bytes=1000)
    done: list[int] = []
    told: list[str] = []
    folder = prepare(data, tmp_path / "data", lambda what, _: told.append(what), spread=counting(done), unit_bytes=1000)
    whole: list[int] = []
    prepare(data, tmp_path / "third", spread=counting(whole), unit_bytes=1000)
    assert done == [whole[0] - 7]
    assert "learning the vocabulary" not in told
    assert contents(folder) == expected
    assert not folder.with_suffix(".partial").exists()


def test_a_preparation_that_was_interrupted_after_its_last_unit_starts_no_process(
    corpus: list[str], tmp_path: Path
) -> None:
    def interrupt(what: str, done: float) -> None:
        if (what, done) == ("tokenizing", 1.0):
            raise KeyboardInterrupt

    data = Data(corpus, 80)
    with pytest.raises(KeyboardInterrupt):
        prepare(data, tmp_path / "data", interrupt, unit_bytes=1000)
    asked: list[int] = []
    folder = prepare(data, tmp_path / "data", spread=counting(asked), unit_bytes=1000)
    assert asked == []
    assert contents(folder) == contents(prepare(data, tmp_path / "other"))


def test_a_unit_is_put_in_its_place_while_later_ones_are_worked_on(corpus: list[str], tmp_path: Path) -> None:
    def losing_what_is_in_place(task: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
        for number, each in enumerate(work):
            yield number, task(*each)
            (kept,) = (tmp_path / "data").glob(f"*.partial/units/*-{each[0].begin:015d}")
            kept.unlink()

    data = Data(corpus, 80)  # of three files, each a unit
    folder = prepare(data, tmp_path / "data", spread=losing_what_is_in_place, unit_bytes=10**6)
    assert contents(folder) == contents(prepare(data, tmp_path / "other"))


def test_a_unit_that_was_damaged_meanwhile_is_done_again(corpus: list[str], tmp_path: Path) -> None:
    data = Data(corpus, 80)
    with pytest.raises(KeyboardInterrupt):
        prepare(data, tmp_path / "data", spread=stop_after(7, KeyboardInterrupt), unit_bytes=1000)
    kept = sorted((tmp_path / "data").glob("*.partial/units/*"))
    assert len(kept) == 7
    kept[0].write_bytes(kept[0].read_bytes()[:-1])
    kept[1].write_bytes(b"")
    kept[2].write_bytes(kept[3].read_bytes())
    folder = prepare(data, tmp_path / "data", unit_bytes=1000)
    assert contents(folder) == contents(prepare(data, tmp_path / "other"))


def test_other_units_than_those_before_an_interruption_change_nothing(corpus: list[str], tmp_path: Path) -> None:
    data = Data(corpus, 80)
    with pytest.raises(KeyboardInterrupt):
        prepare(data, tmp_path / "data", spread=stop_after(7, KeyboardInterrupt), unit_bytes=1000)
    folder = prepare(data, tmp_path / "data", unit_bytes=1500)
    assert contents(folder) == contents(prepare(data, tmp_path / "other"))


KILLED = """
import os, signal, sys
from functools import partial
from pathlib import Path
from tests.workers.conftest import Data
from workers.corpus.prepare import prepare
from workers.corpus.work.pool import in_processes

def progress(what, done):
    if what == "tokenizing" and done > 0.4:
        os.kill(os.getpid(), signal.SIGKILL)

prepare(Data([sys.argv[1]], 80), Path(sys.argv[2]), progress, spread=partial(in_processes, 2), unit_bytes=1000)
"""


def test_a_killed_preparation_leaves_no_process_behind_and_goes_on_where_it_stopped(
    corpus: list[str], tmp_path: Path
) -> None:
    reader, writer = os.pipe()  # its end comes when the last process that has inherited `writer` has ended
    command = [sys.executable, "-c", KILLED, corpus[0], str(tmp_path / "data")]
    with subprocess.Popen(command, stderr=writer) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            assert stream.read() == b""
    assert process.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "data").glob("*.partial/units/*"))) > 5
    folder = prepare(Data(corpus, 80), tmp_path / "data", unit_bytes=1000)
    assert contents(folder) == contents(prepare(Data(corpus, 80), tmp_path / "other"))


def test_bad_bytes_are_named_whatever_process_meets_them_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"Fine.\n\n" * 300 + b"The caf\xe9.\n")
    with pytest.raises(CorpusError, match=r"a\.txt: byte 2,107 is not UTF-8") as caught:
        prepare(Data([str(tmp_path / "a.txt")], 60), tmp_path / "data", spread=partial(in_processes, 2), unit_bytes=99)
    assert not isinstance(caught.value, WorkerError)
    assert list((tmp_path / "data").glob("*.partial")) == []


def test_a_process_that_ends_is_told_and_what_is_done_is_kept(
    corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with pytest.raises(WorkerError, match=r"the process that read it ended with code 3; .* What is done is kept"):
        prepare(Data(corpus, 80), tmp_path, spread=with_task(Ending()), unit_bytes=1000)
    with pytest.raises(WorkerError, match=r"a process failed:\n(.|\n)*ZeroDivisionError"):
        prepare(Data(corpus, 80), tmp_path, spread=with_task(Failing()), unit_bytes=1000)
    assert len(list(tmp_path.glob("*.partial"))) == 1


class Ending:
    key = "ending"

    def __call__(self, unit: Unit, marks: Marks | None) -> bytes:  # noqa: ARG002 -- those of a task
        os._exit(3)


class Failing:
    key = "failing"

    def __call__(self, unit: Unit, marks: Marks | None) -> bytes:  # noqa: ARG002 -- those of a task
        return bytes(len(unit.file.name) // 0)


def with_task(other: Task) -> Spread:
    def spread(_: Task, work: Sequence[Work]) -> Iterator[tuple[int, bytes]]:
        return in_processes(2, other, work)

    return spread


def test_text_that_changes_between_two_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\nTwo.\n\nThree.")

    def change(what: str, done: float) -> None:
        if (what, done) == ("looking for repeated paragraphs", 1.0):
            path.write_text("One.\n\nThree.")

    with pytest.raises(CorpusError, match=r"a\.txt: changed while it was prepared; start again"):
        prepare(Data([str(path)], 60, deduplicate=True), tmp_path / "data", change)


Write = Callable[..., str]


@pytest.mark.parametrize("option", [{"encoding_errors": "replace"}, {"deduplicate": True}])
def test_what_changes_the_tokens_is_part_of_the_folders_name(
    write_text: Write, tmp_path: Path, option: dict[str, str]
) -> None:
    source = write_text("Tea is hot.")
    data = Data([source], 60, **option)  # type: ignore[arg-type] # the names are those of its fields
    assert prepare(data, tmp_path) != prepare(Data([source], 60), tmp_path)


def test_the_same_bytes_under_another_kind_of_name_are_another_text(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_text('{"text": "Tea is hot."}\n')
    folders = [prepare(Data([str(tmp_path / name)], 60), tmp_path) for name in ("a.txt", "a.jsonl")]
    assert decode(Shards(folders[1])) == [["tea is hot ."]]
    assert folders[0] != folders[1]
