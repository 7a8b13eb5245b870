import gzip
from pathlib import Path

import pytest

from workers.contract.sources import CorpusError
from workers.corpus.text import documents


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
    with pytest.raises(CorpusError, match=r"cut\.txt\.gz: broken gzip.*copy the file again"):
        list(documents(tmp_path / "cut.txt.gz"))


def test_progress_grows_to_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("A line of text.\n\n" * 5000)
    seen: list[int] = []
    list(documents(path, seen.append))
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] == path.stat().st_size
