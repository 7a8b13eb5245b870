import hashlib
import json
from pathlib import Path

import pytest

from tests.workers.conftest import write_positions
from workers.contract.manifests import SHARDS_FORMAT, UnknownFormatError, check_format, identity, read_shards
from workers.contract.sources import CorpusError


def change_format(folder: Path, number: int) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))


def test_the_identity_of_a_prepared_corpus_is_the_hash_of_its_manifest(tmp_path: Path) -> None:
    folder = write_positions(tmp_path, [[2, 3]])
    assert identity(folder) == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_equal_shards_have_one_identity_wherever_they_lie_and_others_another(tmp_path: Path) -> None:
    first, copy, other = (
        write_positions(tmp_path / name, lengths)
        for name, lengths in [("a", [[2, 3]]), ("b", [[2, 3]]), ("c", [[3, 2]])]
    )
    assert identity(first) == identity(copy) != identity(other)


@pytest.mark.parametrize("name", ["vocab.txt", "tokens-00000.u16", "sentences.i64", "documents.i64"])
def test_a_file_that_is_cut_or_gone_is_found(tmp_path: Path, name: str) -> None:
    path = write_positions(tmp_path, [[2, 3]]) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=rf"{name}: missing or not [\d,]+ bytes long; prepare the text again"):
        read_shards(tmp_path)
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{name}: missing"):
        identity(tmp_path)


@pytest.mark.parametrize("content", [None, "", '{"format": 2}', "[]", "\0\0"])
def test_a_folder_without_a_whole_manifest_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CorpusError, match=r"no whole prepared corpus; prepare the text again"):
        read_shards(tmp_path)


def test_a_corpus_that_a_newer_version_prepared_is_refused_by_name(tmp_path: Path) -> None:
    change_format(write_positions(tmp_path, [[2, 3]]), SHARDS_FORMAT + 1)
    with pytest.raises(UnknownFormatError, match=r"manifest\.json has format 3.*reads up to 2.*newer version"):
        read_shards(tmp_path)


def test_a_corpus_that_an_older_version_prepared_is_to_be_prepared_again(tmp_path: Path) -> None:
    change_format(write_positions(tmp_path, [[2, 3]]), 1)
    with pytest.raises(CorpusError, match=r"manifest\.json: format 1 of an older version; prepare the text again"):
        read_shards(tmp_path)


def test_known_formats_pass() -> None:
    check_format(Path("run.json"), b'{"format": 1}', "format", 1)
    check_format(Path("run.json"), b'{"format": 1}', "format", 2)
