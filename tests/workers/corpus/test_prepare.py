import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.workers.conftest import Data
from workers.contract.manifests import identity
from workers.contract.sources import SPECIAL_TOKENS, CorpusError
from workers.contract.spec.data import Data as DataSpec
from workers.corpus.prepare import prepare
from workers.corpus.shards import Shards

TEXT = "Tea is hot. Milk is cold.\nBread is brown.\n\nRain falls. Snow falls. Night falls.\n"
Write = Callable[..., str]

IN_A_PROCESS = """
import os, signal, sys
from pathlib import Path
from workers.corpus.prepare import prepare
from workers.contract.spec.data import Data

stages = []
def progress(what, done):
    if "waiting" not in what:
        stages.append(what)
    if what == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

print("ready", flush=True)
sys.stdin.readline()
print(prepare(Data(corpus=[sys.argv[1]], vocab=60), Path(sys.argv[2]), progress), "made" if stages else "found")
"""


def start(source: str, home: Path, die_at: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", IN_A_PROCESS, source, str(home), die_at]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def decode(shards: Shards) -> list[list[str]]:
    """Return each document's sentences, spelled."""
    tokens = (shards.folder / "vocab.txt").read_text().split("\n")
    spelled = [
        " ".join(tokens[i] for i in shards.take(np.arange(a, b))).replace(" ##", "")
        for a, b in pairwise(shards.sentences)
    ]
    return [spelled[a:b] for a, b in pairwise(shards.documents)]


def test_the_shards_hold_the_documents_sentence_by_sentence(write_text: Write, tmp_path: Path) -> None:
    folder = prepare(Data([write_text(TEXT)], 60), tmp_path)
    assert folder.parent == tmp_path
    assert len(folder.name) == 16
    assert decode(Shards(folder)) == [
        ["tea is hot .", "milk is cold .", "bread is brown ."],
        ["rain falls .", "snow falls .", "night falls ."],
    ]


def test_a_given_vocabulary_is_used_as_it_is(write_text: Write, tmp_path: Path) -> None:
    words = ["[unused0]", *SPECIAL_TOKENS, "tea", "is", "hot", "."]
    vocab = write_text("\n".join(words), "vocab.txt")
    shards = Shards(prepare(Data([write_text(TEXT)], f"file://{vocab}"), tmp_path))
    assert decode(shards)[0] == ["tea is hot .", "[UNK] is [UNK] .", "[UNK] is [UNK] ."]
    assert shards.manifest.vocab_size == len(words)


def test_a_job_spec_says_all_that_preparing_needs(write_text: Write, tmp_path: Path) -> None:
    source = write_text(TEXT)
    from_spec = prepare(DataSpec(corpus=(source,), vocab=60, mask_probability=0.2), tmp_path)
    assert from_spec == prepare(Data([source], 60), tmp_path)


def test_a_prepared_text_is_found_again_and_told_by_its_content(write_text: Write, tmp_path: Path) -> None:
    source, stages = write_text(TEXT), list[str]()
    first = prepare(Data([source], 60), tmp_path)
    made = (first / "manifest.json").stat().st_mtime_ns
    assert prepare(Data([write_text(TEXT, "copy.txt")], 60), tmp_path, lambda what, _: stages.append(what)) == first
    assert stages == []
    assert (first / "manifest.json").stat().st_mtime_ns == made

    others = [prepare(Data([source], 61), tmp_path), prepare(Data([source], 60, lowercase=False), tmp_path)]
    others.append(prepare(Data([write_text(TEXT + "\nMore.", "more.txt")], 60), tmp_path))
    assert len({first, *others}) == 4


def test_progress_names_the_stages_and_ends_with_the_whole(write_text: Write, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    two = [write_text("\n".join([TEXT] * times), f"{times}.txt") for times in (50, 100)]
    prepare(Data(two, 60), tmp_path, lambda *what: told.append(what), unit_bytes=500)
    assert told[0][0] == "learning the vocabulary"
    for stage in ("learning the vocabulary", "tokenizing"):
        parts = [part for what, part in told if what == stage]
        assert parts == sorted(parts)
        assert 0 < parts[0] < 0.1
        assert parts[-1] == 1


@pytest.mark.parametrize("damage", ["no manifest", "cut shard", "left-over"])
def test_a_torn_folder_is_prepared_anew(write_text: Write, tmp_path: Path, damage: str) -> None:
    data = Data([write_text(TEXT)], 60)
    folder = prepare(data, tmp_path)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "cut shard":
        (folder / "tokens-00000.u16").write_bytes(b"\0")
    else:
        shutil.move(folder, folder.with_suffix(".partial"))
    told: list[str] = []
    assert prepare(data, tmp_path, lambda what, _: told.append(what)) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    if damage == "cut shard":
        assert told[0].startswith(f"preparing it again: {folder}/tokens-00000.u16: missing or not ")
    assert not folder.with_suffix(".partial").exists()


def test_a_preparation_killed_half_way_is_not_mistaken_for_a_whole_one(write_text: Write, tmp_path: Path) -> None:
    source = write_text(TEXT)
    killed = start(source, tmp_path, die_at="tokenizing")
    killed.communicate("go\n")
    assert killed.returncode == -signal.SIGKILL
    remains = list(tmp_path.glob("*.partial"))
    assert len(remains) == 1
    assert not remains[0].with_suffix("").exists()

    folder = prepare(Data([source], 60), tmp_path)
    Shards(folder).verify()
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".json", ".lock", ".txt"}


def test_of_two_processes_one_prepares_and_both_get_the_folder(write_text: Write, tmp_path: Path) -> None:
    source = write_text(TEXT * 300)
    both = [start(source, tmp_path), start(source, tmp_path)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0].split() for process in both]
    assert sorted(how for _, how in answers) == ["found", "made"]
    assert {Path(folder) for folder, _ in answers} == {prepare(Data([source], 60), tmp_path)}


def test_who_comes_while_another_prepares_waits_for_it_and_says_so(write_text: Write, tmp_path: Path) -> None:
    data, order = Data([write_text(TEXT)], 60), list[str]()
    is_waiting = threading.Event()

    def told(what: str, _: float) -> None:
        order.append(f"second is {what}")
        is_waiting.set()

    def second() -> None:
        prepare(data, tmp_path, told)
        order.append("second has it")

    waiting = threading.Thread(target=second)

    def while_preparing(what: str, _: float) -> None:
        if what == "learning the vocabulary" and not order:
            waiting.start()
            assert is_waiting.wait(timeout=60)
            order.append("first goes on")

    prepare(data, tmp_path, while_preparing)
    waiting.join()
    assert order == [
        "second is waiting for another process that prepares this text",
        "first goes on",
        "second has it",
    ]


@pytest.mark.parametrize("text", ["", "\n \n", "\x00\x01"])
def test_an_empty_corpus_is_refused_and_leaves_nothing(write_text: Write, tmp_path: Path, text: str) -> None:
    source = write_text(text)
    with pytest.raises(CorpusError, match=r"text\.txt: holds no text; give files with one paragraph a line"):
        prepare(Data([source], 60), tmp_path / "data")
    assert {path.suffix for path in (tmp_path / "data").iterdir()} == {".json", ".lock"}


def test_text_that_a_vocabulary_cannot_spell_at_all_is_refused(write_text: Write, tmp_path: Path) -> None:
    vocab = write_text("\n".join([*SPECIAL_TOKENS, "thé"]), "vocab.txt")
    with pytest.raises(CorpusError, match=r"text\.txt: all 21 tokens are \[UNK\]; give data\.vocab a vocabulary"):
        prepare(Data([write_text(TEXT)], vocab), tmp_path)


def test_text_that_changes_while_it_is_prepared_is_refused(write_text: Write, tmp_path: Path) -> None:
    source = Path(write_text(TEXT))

    def change(what: str, done: float) -> None:
        if (what, done) == ("tokenizing", 1.0):
            source.write_text(TEXT + "More.")

    with pytest.raises(CorpusError, match=r"text\.txt: changed while it was prepared; start again"):
        prepare(Data([str(source)], 60), tmp_path, change)


def test_two_machines_that_prepare_the_same_text_get_the_same_identity(write_text: Write, tmp_path: Path) -> None:
    here, there = write_text(TEXT, "here.txt"), write_text(TEXT, "there.txt")
    assert identity(prepare(Data([here], 60), tmp_path / "1")) == identity(prepare(Data([there], 60), tmp_path / "2"))


def test_a_text_has_the_folder_and_the_identity_that_older_versions_gave_it(prepared: Path) -> None:
    # Written down from the version before units of work: its runs go on, and its prepared folders are found.
    assert prepared.name == "2c1270d56a3efd83"
    assert identity(prepared) == "cca8556d90684857965bae31b21426a72bebbea3467782ec6ec92ffdcc95bfdc"


@pytest.mark.parametrize(
    ("given", "lowercase", "spelt"),
    [("Tea", "auto", "Tea"), ("tea", "auto", "tea"), ("Tea", True, "[UNK]"), ("tea", False, "[UNK]")],
)
def test_a_cased_vocabulary_is_honoured_unless_the_job_says_otherwise(
    write_text: Write, tmp_path: Path, given: str, lowercase: bool | Literal["auto"], spelt: str
) -> None:
    vocab = write_text("\n".join([*SPECIAL_TOKENS, given, "is", "hot", "."]), "vocab.txt")
    folder = prepare(Data([write_text(TEXT)], vocab, lowercase), tmp_path)
    assert decode(Shards(folder))[0][0] == f"{spelt} is hot ."


def test_a_vocabulary_is_learnt_in_upper_case_too_where_the_job_says_so(write_text: Write, tmp_path: Path) -> None:
    tokens = (prepare(Data([write_text(TEXT)], 60, lowercase=False), tmp_path) / "vocab.txt").read_text().split("\n")
    assert {"T", "##t", "falls"} <= set(tokens)


def test_the_remains_of_an_older_format_do_no_harm(write_text: Write, tmp_path: Path) -> None:
    data = Data([write_text(TEXT)], 60)
    folder = prepare(data, tmp_path)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"format": 1, "sources": ["text.txt"], "tokens": 1, "files": []}))
    assert prepare(data, tmp_path) == folder
    Shards(folder).verify()


def test_a_folder_that_cannot_be_written_to_is_refused_by_name(write_text: Write) -> None:
    source = write_text(TEXT)
    with pytest.raises(CorpusError, match=r"text\.txt/data: text cannot be prepared there .*make room, or choose"):
        prepare(Data([source], 60), Path(source) / "data")


def test_a_missing_vocabulary_is_refused_by_name(write_text: Write, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt.*data\.vocab"):
        prepare(Data([write_text(TEXT)], str(tmp_path / "nowhere.txt")), tmp_path)


def test_a_vocabulary_too_large_for_the_shards_is_refused(write_text: Write, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"data\.vocab: a vocabulary of 70,000 tokens"):
        prepare(Data([write_text(TEXT)], 70_000), tmp_path)


def test_bad_bytes_in_one_of_many_files_are_named(write_text: Write, tmp_path: Path) -> None:
    write_text(TEXT, "good.txt")
    (tmp_path / "worse.txt").write_bytes(b"Fine. So far.\n\xff\n")
    with pytest.raises(CorpusError, match=r"worse\.txt: byte 14 is not UTF-8"):
        prepare(Data([str(tmp_path)], 60), tmp_path / "home")


def test_a_text_that_is_not_the_one_a_run_was_begun_on_is_refused_before_it_is_prepared(
    write_text: Write, tmp_path: Path
) -> None:
    source = write_text(TEXT)
    begun_on = identity(prepare(Data([source], 60), tmp_path))
    assert identity(prepare(Data([source], 60), tmp_path, begun_on=begun_on)) == begun_on
    others = {
        "the vocabulary or the settings are others": Data([source], 61),
        "the files hold another text": Data([write_text(TEXT + "More.", "more.txt")], 60),
        r"another text is kept from training, .*b\.txt": Data([source], 60, validation=[write_text("A. B.", "b.txt")]),
    }
    stages: list[str] = []
    for says, data in others.items():
        with pytest.raises(CorpusError, match=rf"not the text, .* that this run was begun on.*: {says}\. Bring"):
            prepare(data, tmp_path, lambda what, _: stages.append(what), begun_on=begun_on)
    assert stages == []


IN_A_START = """
import sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from workers.corpus.prepare import prepare
from workers.contract.spec.data import Data
folder = prepare(Data(corpus=[sys.argv[1]], vocab=60), Path(sys.argv[2]))
print(folder, opened.count(sys.argv[1]))
"""


def test_a_start_does_not_open_a_text_that_was_prepared_before(write_text: Write, tmp_path: Path) -> None:
    source = write_text(TEXT)
    folder = prepare(Data([source], 60), tmp_path)
    for index in tmp_path.glob("texts-*.json"):  # as if the file had changed long before it was hashed
        index.write_text(json.dumps([known | {"is_settled": True} for known in json.loads(index.read_text())]))
    for home, times in ((tmp_path, 0), (tmp_path / "other", 2)):
        command = [sys.executable, "-c", IN_A_START, source, str(home)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found, opened = done.stdout.split()
        assert (Path(found).name, int(opened) >= times if times else int(opened) == 0) == (folder.name, True)
