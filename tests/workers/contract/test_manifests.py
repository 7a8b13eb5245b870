import hashlib
import json
from pathlib import Path

import pytest

from tests.workers.conftest import write_positions
from workers.contract.manifests import (
    SHARDS_FORMAT,
    CheckpointManifest,
    StoredFile,
    UnknownFormatError,
    check_format,
    identity,
    read_shards,
)
from workers.contract.sources import CorpusError


def change_format(folder: Path, number: int) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))


def test_the_identity_of_a_prepared_corpus_is_the_hash_of_its_manifest_without_heads(tmp_path: Path) -> None:
    manifest = write_positions(tmp_path, [[2, 3]]) / "manifest.json"
    document = json.loads(manifest.read_text())
    del document["heads"]
    as_older_versions_wrote_it = json.dumps(document, indent=2) + "\n"
    before = identity(tmp_path)
    assert before == hashlib.sha256(as_older_versions_wrote_it.encode()).hexdigest()
    manifest.write_text(as_older_versions_wrote_it)
    assert identity(tmp_path) == before


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
    with pytest.raises(CorpusError, match=r"no complete prepared corpus; prepare the text again"):
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


def parse(**fields: object) -> CheckpointManifest:
    return CheckpointManifest.parse(Path("manifest.json"), json.dumps(fields).encode())


def test_a_checkpoints_manifest_is_read_back_as_it_was_written() -> None:
    files = {"__0_0.distcp": StoredFile(size_bytes=3, sha256="abc")}
    written = CheckpointManifest(step=5, world_size=2, attempt=3, identity="id", files=files, best_loss=1.5)
    assert CheckpointManifest.parse(Path("manifest.json"), written.model_dump_json().encode()) == written


def test_the_first_format_had_no_attempt_no_identity_and_no_hashes() -> None:
    found = parse(step=200, world_size=2, sizes_bytes={"__0_0.distcp": 3})
    assert (found.format, found.step, found.world_size, found.attempt, found.identity) == (1, 200, 2, 0, None)
    assert found.files == {"__0_0.distcp": StoredFile(size_bytes=3, sha256=None)}
    assert found.is_sound


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "a/b", "a\\b", "a\0", ""])
def test_a_checkpoints_manifest_names_no_file_outside_its_folder(name: str) -> None:
    with pytest.raises(ValueError, match=r"files.*is not the name of a file in the manifest.s folder"):
        parse(format=2, step=1, world_size=1, files={name: {"size_bytes": 1}})


@pytest.mark.parametrize("name", ["../vocab.txt", "{folder}/vocab.txt", "..", "a/../vocab.txt"])
def test_the_manifest_of_a_prepared_corpus_names_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    folder = write_positions(tmp_path / "corpus", [[2, 3]])
    manifest = json.loads((folder / "manifest.json").read_text())
    vocabulary = next(file for file in manifest["files"] if file["name"] == "vocab.txt")
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    vocabulary["name"] = name.format(folder=tmp_path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorpusError, match="no complete prepared corpus; prepare the text again"):
        read_shards(folder)


def test_a_checkpoint_of_a_newer_format_is_refused_by_its_number() -> None:
    with pytest.raises(UnknownFormatError, match="has format 3"):
        parse(format=3)
