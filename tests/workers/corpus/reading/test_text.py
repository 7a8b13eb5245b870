import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from workers.contract.sources import CorpusError
from workers.contract.text_files import TextFile
from workers.corpus.reading.text import Reading, measure, paragraphs
from workers.corpus.reading.units import cut

DOCUMENTS = [["One. Two.", "Three."], ["Vier, für immer."], ["\u4e94\u3002", "Six\u2028and more."]]
AS_TEXT = "\n\n".join("\n".join(document) for document in DOCUMENTS)
AS_JSON = "".join(json.dumps({"id": 1, "text": "\n".join(document)}) + "\n" for document in DOCUMENTS)


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    compressed: bytes = sink.getvalue().to_pybytes()
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd}


def write_table(path: Path, texts: Sequence[str | bytes | None], kind: pa.DataType = None, **options: int) -> Path:
    column = pa.array(texts, kind or pa.string())
    parquet.write_table(pa.table({"id": range(len(texts)), "text": column}), path, **options)
    return path


def read(path: Path, unit_bytes: int = 2**22, reading: Reading | None = None) -> list[list[str]]:
    """Return the documents of a file that is read in units."""
    file = TextFile(str(path))
    found: list[list[str]] = [[]]
    for unit in cut([file], [measure(file)], unit_bytes):
        for paragraph in paragraphs(unit, reading or Reading()):
            if paragraph is not None:
                found[-1].append(paragraph)
            elif found[-1]:
                found.append([])
    assert found.pop() == []
    return found


def refusal(path: Path, unit_bytes: int = 2**22, reading: Reading | None = None) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path, unit_bytes, reading)
    return str(caught.value)


def test_a_line_is_a_paragraph_and_blank_lines_separate_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf\n \nOne.  \r\n Two.\r\n\r\n\t\n\nThree.\n\n")
    assert read(tmp_path / "a.txt") == [["One.", "Two."], ["Three."]]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst", "a.jsonl", "a.JSONL.gz", "a.jsonl.zst"])
def test_the_same_documents_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    content = (AS_JSON if "jsonl" in name.lower() else AS_TEXT).encode()
    (tmp_path / name).write_bytes(COMPRESS.get(name.rpartition(".")[2], bytes)(content))
    for unit_bytes in (1, 7, 2**22):
        assert read(tmp_path / name, unit_bytes) == DOCUMENTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_row_of_a_table_is_a_document_whatever_its_row_groups(tmp_path: Path, kind: pa.DataType) -> None:
    texts = [*("\n".join(document) for document in DOCUMENTS), None, " \n"]
    for rows in (1, 2, 5):
        path = write_table(tmp_path / "a.parquet", texts, kind, row_group_size=rows)
        assert read(path, unit_bytes=1) == read(path) == DOCUMENTS


@given(
    lines=st.lists(st.sampled_from(["", " ", "a", "für", "One two.\r", "\u2028x"]), max_size=20),
    unit_bytes=st.integers(1, 30),
    ends=st.booleans(),
)
def test_how_a_text_is_cut_changes_nothing_in_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], unit_bytes: int, ends: bool
) -> None:
    text = "\n".join(lines) + "\n" * ends
    path = tmp_path_factory.mktemp("cut") / "a.txt"
    path.write_bytes(text.encode())
    expected: list[list[str]] = [[]]
    for line in map(str.strip, text.split("\n")):
        expected[-1].append(line) if line else expected.append([])
    assert read(path, unit_bytes) == [document for document in expected if document]


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_all_members_of_a_compressed_file_are_read(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"a.txt.{compression}"
    path.write_bytes(b"".join(COMPRESS[compression](part.encode()) for part in ("One.\n", "Two.\n\n", "Three.\n")))
    assert read(path, unit_bytes=4) == [["One.", "Two."], ["Three."]]


@pytest.mark.parametrize("name", ["latin.txt", "latin.txt.gz", "latin.txt.zst"])
@pytest.mark.parametrize("unit_bytes", [3, 2**22])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_that_is_not_utf8_is_refused_with_file_and_byte(
    tmp_path: Path, name: str, unit_bytes: int, mark: bytes
) -> None:
    text = mark + b"A fine line.\nThe caf\xe9 is shut.\n"
    (tmp_path / name).write_bytes(COMPRESS.get(name.rpartition(".")[2], bytes)(text))
    said = refusal(tmp_path / name, unit_bytes)
    assert f"{name}: byte {20 + len(mark)} is not UTF-8" in said
    assert "iconv" in said
    assert "encoding_errors: replace" in said


def test_a_byte_in_the_first_line_is_counted_with_the_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9")
    assert "a.txt: byte 6 is not UTF-8" in refusal(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_bytes_that_are_not_utf8_are_named_in_tables_and_json_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.jsonl":
        path.write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    else:
        array = pa.array([b"fine", b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
        parquet.write_table(pa.table({"text": array}), path, row_group_size=1)
    where = "byte 30" if name == "a.jsonl" else "row 2, byte 3"
    assert f"{name}: {where} is not UTF-8" in refusal(path)
    assert read(path, reading=Reading("replace"))[-1] == ["caf\ufffd"]


def test_bad_bytes_are_read_as_the_replacement_character_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"The caf\xe9 is shut.\n\xff\xfe")
    assert read(tmp_path / "a.txt", reading=Reading("replace")) == [["The caf\ufffd is shut.", "\ufffd\ufffd"]]


def test_half_of_a_character_in_json_is_refused_by_line_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00"}\n{"text": "cut \\ud83d off"}\n')
    assert r"a.jsonl: the line at byte 25 has \ud83d, half of a character" in refusal(path)
    assert read(path, reading=Reading("replace")) == [["\U0001f600"], ["cut \ufffd off"]]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": ', "is not JSON (Expecting value"),
        ('{"text": "a\tb"}', "is not JSON (Invalid control character"),
        ('["text"]', "is not a JSON object; write one with the key 'text'"),
        ('{"content": "a", "id": 1}', "has no 'text', its keys are content, id; write data.text_column"),
        ('{"text": 7}', "has '7' as 'text', which is not text"),
    ],
)
def test_a_line_of_json_that_cannot_be_read_is_named_by_file_and_byte(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "Fine."}\n\n' + line)
    assert f"a.jsonl: the line at byte 19 {says}" in refusal(tmp_path / "a.jsonl")


def test_a_line_of_json_without_text_is_an_empty_document(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": ""}\n{"text": "One."}\n')
    assert read(tmp_path / "a.jsonl") == [["One."]]


def test_another_column_may_hold_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "One."}\n')
    parquet.write_table(pa.table({"content": ["One."]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert read(tmp_path / name, reading=Reading(text_column="content")) == [["One."]]


def test_a_table_without_the_column_or_with_numbers_in_it_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", ["One."])
    said = refusal(path, reading=Reading(text_column="body"))
    assert "a.parquet: has no column 'body', its columns are id, text; write data.text_column" in said
    said = refusal(path, reading=Reading(text_column="id"))
    assert "a.parquet: column 'id' holds int64, not text; write another data.text_column" in said


def test_a_broken_table_is_refused_by_name(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", ["One."] * 99)
    path.write_bytes(path.read_bytes()[:-20])
    assert "a.parquet: no readable Parquet file (" in refusal(path)


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "other bytes"])
def test_a_broken_compressed_file_is_refused_by_name(tmp_path: Path, compression: str, damage: str) -> None:
    path, content = tmp_path / f"a.txt.{compression}", COMPRESS[compression](b"A sentence. " * 100)
    path.write_bytes(content[:-12] if damage == "cut" else b"These are no compressed bytes.")
    said = refusal(path)
    assert f"a.txt.{compression}: broken {'gzip' if compression == 'gz' else 'zstd'} after byte " in said
    assert "copy the file again" in said


def test_a_file_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (unit,) = cut([TextFile(str(tmp_path / "a.txt"))], [4])
    (tmp_path / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read after byte 0 \(.*No such file"):
        list(paragraphs(unit, Reading()))
