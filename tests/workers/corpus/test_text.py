import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.corpus.errors import CorpusError
from workers.corpus.text import BUILTIN, documents, resolve, split_sentences, text_files


@pytest.mark.parametrize("name", ["austen", "austen-valid"])
def test_a_built_in_corpus_is_in_the_package_and_has_documents(name: str) -> None:
    assert sum(1 for _ in documents(resolve(f"builtin:{name}"))) > 20


def test_an_unknown_built_in_corpus_is_refused_with_those_there_are() -> None:
    with pytest.raises(CorpusError, match=r"builtin:wikipedia.*builtin:austen, builtin:austen-valid"):
        resolve("builtin:wikipedia")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt: no such file.*correct data\.corpus"):
        resolve(str(tmp_path / "nowhere.txt"))


def test_a_directory_gives_its_text_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt.gz", "c/d.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    in_order = [tmp_path / name for name in ("a.txt.gz", "b.txt", "c/d.txt")]
    assert text_files([str(tmp_path), "builtin:austen"]) == [*in_order, BUILTIN["austen"]]


@pytest.mark.parametrize("name", ["empty", "table.csv"])
def test_a_source_that_holds_no_text_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "table.csv").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=rf"{name}: holds no text; give a \.txt or \.txt\.gz file"):
        text_files([str(tmp_path / name)])


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"data\.corpus is empty"):
        text_files([])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_blank_lines_part_documents_whatever_the_newlines_and_the_byte_order_mark(
    tmp_path: Path, newline: str, mark: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(mark + newline.join(["", "One.", "Two.", "", "  ", "Three.", ""]).encode())
    assert list(documents(path)) == [["One.", "Two."], ["Three."]]


def test_compressed_text_reads_as_the_plain_text(tmp_path: Path) -> None:
    text = "Eins. Zwei.\n\nDrei, für immer.".encode()
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
    assert list(documents(tmp_path / "a.txt.gz")) == list(documents(tmp_path / "a.txt"))


@pytest.mark.parametrize("name", ["latin.txt", "latin.txt.gz"])
def test_text_that_is_not_utf8_is_refused_with_file_and_byte(tmp_path: Path, name: str) -> None:
    text = b"A fine line.\nThe caf\xe9 is shut.\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(CorpusError, match=rf"{name}: byte 20 is not UTF-8 .*iconv"):
        list(documents(tmp_path / name))


def test_a_cut_gzip_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"A sentence. " * 100)[:-12])
    with pytest.raises(CorpusError, match=r"cut\.txt\.gz: broken gzip.*copy the file anew"):
        list(documents(tmp_path / "cut.txt.gz"))


def test_progress_grows_to_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("A line of text.\n\n" * 5000)
    seen: list[int] = []
    list(documents(path, seen.append))
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] == path.stat().st_size


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("It rained. She stayed.", ["It rained.", "She stayed."]),
        ("Mr. Elton met Dr. J. R. Watson. They spoke.", ["Mr. Elton met Dr. J. R. Watson.", "They spoke."]),
        ('"Oh!" cried she. (He nodded.) "No?"', ['"Oh!" cried she.', "(He nodded.)", '"No?"']),
        ("“Stop!” “Why?” he asked.", ["“Stop!”", "“Why?” he asked."]),
        ("It was I. He knew… Did he?", ["It was I.", "He knew…", "Did he?"]),
        (
            "See Fig. 3 of 2.5, e.g. There. 12 men came.",
            ["See Fig. 3 of 2.5, e.g. There.", "12 men came."],
        ),
        ("Was he late? yes, and so... on.", ["Was he late? yes, and so... on."]),
        ("Élan. Über alles.", ["Élan.", "Über alles."]),
        ("no stop at all", ["no stop at all"]),
        ("  ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(paragraph: str, sentences: list[str]) -> None:
    assert split_sentences(paragraph) == sentences


@settings(deadline=None)
@given(st.text(alphabet="aB1. !?\"'()\u201c\u201d\u2026\u00a0Mr", max_size=80))
def test_splitting_loses_nothing_but_blanks(paragraph: str) -> None:
    sentences = split_sentences(paragraph)
    assert "".join("".join(sentences).split()) == "".join(paragraph.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)
