import gzip
import http.server
import os
import threading
from functools import partial
from pathlib import Path

import fsspec
import pytest

from tests.workers.conftest import Data
from workers.contract.problems import SpecError
from workers.contract.sources import BUILTIN, CorpusError, check_files, find, resolve, warnings
from workers.contract.spec.phase import Phase
from workers.contract.text_files import ALLOWED


def found(*sources: str) -> list[Path]:
    return [Path(file.name) for file in find(sources).files]


def phase(batch: int, seq_len: int) -> Phase:
    return Phase(seq_len=seq_len, global_batch_size=batch, micro_batch_size=1, steps=1, lr=1e-3)


@pytest.mark.parametrize("name", ["austen", "austen-valid"])
def test_a_built_in_corpus_is_in_the_package(name: str) -> None:
    with gzip.open(resolve(f"builtin:{name}")[0], "rt") as file:
        assert len(file.read()) > 400_000


def test_an_unknown_built_in_corpus_is_refused_with_those_there_are() -> None:
    with pytest.raises(CorpusError, match=r"builtin:wikipedia: no such text; write builtin:austen, builtin:austen-val"):
        resolve("builtin:wikipedia")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt: no such file.*check the path"):
        resolve(str(tmp_path / "nowhere.txt"))


def test_a_folder_gives_its_text_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt.gz", "c/d.txt", "c.txt", "SHOUT.TXT"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    in_order = [tmp_path / name for name in ("SHOUT.TXT", "a.txt.gz", "b.txt", "c/d.txt", "c.txt")]
    assert found(str(tmp_path), "builtin:austen") == [*in_order, BUILTIN["austen"]]


def test_files_that_are_no_text_and_hidden_ones_are_left_out_and_named(tmp_path: Path) -> None:
    for name in ("a.txt", "notes.md", ".b.txt", ".git/c.txt", "deep/table.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert found(str(tmp_path)) == [tmp_path / "a.txt"]
    assert find([str(tmp_path)]).left_out == (
        f"{tmp_path}/.b.txt (hidden)",
        f"{tmp_path}/.git (hidden)",
        f"{tmp_path}/deep/table.csv (not {ALLOWED})",
        f"{tmp_path}/notes.md (not {ALLOWED})",
    )


def test_linked_folders_are_followed_and_a_link_that_leads_back_is_harmless(tmp_path: Path) -> None:
    for name in ("corpus/a.txt", "elsewhere/b.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "corpus")
    assert found(str(tmp_path / "corpus")) == [
        tmp_path / "corpus" / "a.txt",
        tmp_path / "corpus" / "linked" / "b.txt",
    ]


def test_a_file_that_is_reached_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "c.txt")
    assert found(str(tmp_path), str(tmp_path / "a.txt"), f"{tmp_path}/../{tmp_path.name}") == [tmp_path / "a.txt"]


@pytest.mark.parametrize("name", ["empty", "table.csv"])
def test_a_source_that_holds_no_text_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "table.csv").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=rf"{name}: holds no text; give a \.txt, \.jsonl"):
        find([str(tmp_path / name)])


def test_a_link_to_a_text_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(CorpusError, match=r"cannot be read: .*b\.txt"):
        find([str(tmp_path)])


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"data\.corpus: is empty"):
        find([])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/nowhere/a.txt", "no such file"),
        ("a.txt", "relative path"),
        ("builtin:dickens", "no such text"),
        ("~nobody-of-this-name/a.txt", "cannot be read"),
    ],
)
def test_a_corpus_that_is_not_there_is_a_problem_with_field_and_value(source: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        check_files(Data(["builtin:austen", source], 100))
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("data.corpus[1]", repr(source))


def test_every_file_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        check_files(Data(["/nowhere/a.txt"], "/nowhere/vocab.txt", validation=["/nowhere/b.txt"]))
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["data.corpus[0]", "data.validation[0]", "data.vocab"]


def test_a_held_out_file_that_the_corpus_names_too_by_whatever_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One sentence. Another.\n")
    (tmp_path / "b.txt").write_text("A third. A fourth.\n")
    (tmp_path / "link").symlink_to(tmp_path / "b.txt")
    (tmp_path / "link").rename(tmp_path / "other.txt")
    check_files(Data([str(tmp_path / "a.txt")], 100, validation=[str(tmp_path / "b.txt"), "https://host/a.txt"]))
    held_out = ["builtin:austen-valid", str(tmp_path / "other.txt")]
    with pytest.raises(SpecError, match=r"is a file of data\.corpus, too") as caught:
        check_files(Data([str(tmp_path)], 100, validation=held_out))
    assert [problem.field for problem in caught.value.problems] == ["data.validation[1]"]


def test_a_corpus_of_empty_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for source in (tmp_path / "empty.txt", tmp_path):
        with pytest.raises(SpecError, match="holds no text"):
            check_files(Data([str(source)], 100))


def test_texts_that_are_there_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One sentence. Another.\n")
    (tmp_path / "vocab").write_text("[PAD]\n")
    check_files(
        Data([str(tmp_path), str(tmp_path / "a.txt"), "builtin:austen-valid"], str(tmp_path / "vocab"), validation=0.1)
    )


def test_a_corpus_of_fewer_bytes_than_a_step_has_tokens_is_warned_of_before_it_is_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"\xff" * 500)  # no text: nothing reads it here
    data = Data([str(tmp_path)], 100)
    assert warnings(data, [phase(10, 100), phase(125, 8)]) == []
    (warning,) = warnings(data, [phase(10, 100), phase(11, 100)])
    assert (warning.field, warning.value) == ("phases[1].global_batch_size", "11")
    assert "1,100 tokens, the corpus has 1,000 bytes" in warning.problem


def test_a_glob_gives_the_files_that_match_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.jsonl.zst", "c.parquet", "notes.md", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert found(f"{tmp_path}/**/*.txt") == [tmp_path / "b" / "2.txt"]
    assert found(f"{tmp_path}/*") == [tmp_path / name for name in ("a/1.jsonl.zst", "b/2.txt", "c.parquet")]
    assert find([f"{tmp_path}/*"]).left_out == (f"{tmp_path}/notes.md (not {ALLOWED})",)
    with pytest.raises(CorpusError, match=r"\*\.gz: no such file"):
        find([f"{tmp_path}/*.gz"])


def test_a_file_whose_own_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    for name in ("a[1].txt", "a1.txt"):
        (tmp_path / name).touch()
    assert found(f"{tmp_path}/a[1].txt") == [tmp_path / "a[1].txt"]


def test_files_on_other_file_systems_are_found_and_read_like_those_of_this_one(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for name in ("corpus/b.txt", "corpus/deep/a.jsonl", "corpus/notes.md", "corpus/.git/c.txt"):
        system.pipe(f"/{tmp_path.name}/{name}", b"One sentence.\n")
    root = f"memory:///{tmp_path.name}/corpus"
    assert [file.name.removeprefix(root) for file in find([root]).files] == ["/b.txt", "/deep/a.jsonl"]
    assert find([root]).left_out == (f"{root}/.git/c.txt (hidden)", f"{root}/notes.md (not {ALLOWED})")
    assert [file.name.removeprefix(root) for file in find([f"{root}/*.txt", f"{root}/b.txt"]).files] == ["/b.txt"]
    (file,) = find([f"{root}/b.txt"]).files
    with file.reading() as stream:
        assert stream.read() == b"One sentence.\n"
    before = file.state()
    system.pipe(f"/{tmp_path.name}/corpus/b.txt", b"Two sentences.\n")
    assert (before.size_bytes, file.state().size_bytes) == (14, 15)
    assert before.version != file.state().version


def test_a_file_of_a_web_server_that_changes_at_the_same_size_is_another_one(tmp_path: Path) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    (tmp_path / "a.txt").write_text("Tea is hot.")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        (file,) = find([f"http://127.0.0.1:{server.server_port}/a.txt"]).files
        before = file.state()
        assert file.state() == before
        (tmp_path / "a.txt").write_text("Ice is hot.")
        os.utime(tmp_path / "a.txt", (10**9, 10**9))
        after = file.state()
        server.shutdown()
    assert (before.size_bytes, after.size_bytes) == (11, 11)
    assert before.version != after.version


def test_a_url_of_this_machine_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One sentence.")
    assert found(f"file://{tmp_path}/a.txt", str(tmp_path / "a.txt")) == [tmp_path / "a.txt"]
    check_files(Data([f"file://{tmp_path}"], 100))
    check_files(Data([f"file://{tmp_path}"], f"file://{tmp_path}/a.txt"))


def test_a_vocabulary_on_another_file_system_is_refused_with_the_remedy() -> None:
    with pytest.raises(SpecError, match=r"data\.vocab = 'hf://a/vocab\.txt': a vocabulary is read from this machine"):
        check_files(Data(["builtin:austen"], "hf://a/vocab.txt"))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere://a.txt", r"nowhere://a\.txt: cannot be read: .*Protocol not known: nowhere"),
        ("memory://nothing/here.txt", r"memory://nothing/here\.txt: holds no text"),
        ("hf://datasets/somebody/something", r"hf://datasets/somebody/something: cannot be read: .*(?i:offline)"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_by_name(source: str, says: str) -> None:
    with pytest.raises(CorpusError, match=says):
        find([source])


def test_the_server_checks_of_a_url_only_that_there_is_such_a_file_system() -> None:
    check_files(Data(["memory://nothing/here.txt", "hf://datasets/somebody/something"], 100))
    with pytest.raises(SpecError, match="Protocol not known: nowhere"):
        check_files(Data(["nowhere://a.txt"], 100))


@pytest.mark.parametrize("field", ["corpus", "vocab", "folder"])
def test_a_pipe_is_no_text_and_nobody_waits_for_it(field: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    pipe, text = tmp_path / "folder" / "pipe.txt", tmp_path / "text.txt"
    os.mkfifo(pipe)
    text.write_text("It is a truth.\n")
    if field == "folder":
        (tmp_path / "folder" / "text.txt").write_text("It is a truth.\n")
        check_files(Data([str(tmp_path / "folder")], 100))
        assert find([str(tmp_path / "folder")]).left_out == (f"{pipe} (not a file)",)
        return
    data = Data([str(pipe)], 100) if field == "corpus" else Data([str(text)], str(pipe))
    with pytest.raises(SpecError, match="holds no text" if field == "corpus" else "is not a file"):
        check_files(data)
