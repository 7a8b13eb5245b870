from pathlib import Path

import pytest

from workers.contract.exports import ExportManifest, read_export
from workers.contract.manifests import StoredFile, UnknownFormatError

MANIFEST = ExportManifest(name="demo", step=200, attempt=1, files={"config.json": StoredFile(size_bytes=2)})


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(MANIFEST.model_dump_json())
    assert read_export(tmp_path) == MANIFEST
    assert MANIFEST.size_bytes == 2


def test_a_folder_without_a_manifest_of_an_export_is_none(tmp_path: Path) -> None:
    assert read_export(tmp_path / "absent") is None
    assert read_export(tmp_path) is None
    (tmp_path / "manifest.json").write_text('{"step": 4, "world_size": 1, "files": {}}')  # that of a checkpoint
    assert read_export(tmp_path) is None
    assert read_export(tmp_path / "manifest.json") is None


def test_an_export_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(MANIFEST.model_copy(update={"format": 99}).model_dump_json())
    with pytest.raises(UnknownFormatError, match="format 99"):
        read_export(tmp_path)
