import hashlib
import json
from pathlib import Path

import pytest

from server.client import Client
from server.client.download import download
from server.client.errors import DownloadError, RefusedError
from tests.server.cli.command import run_bigbatch
from tests.serving import Served
from workers.contract.exports import ExportManifest, read_export
from workers.contract.manifests import StoredFile

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9000}


def finish(served: Served, job_id: str, *, step: int = 20, damage: bytes = b"") -> None:
    """Write what a finished export has, its first file damaged where that is asked for."""
    folder = served.settings.run_folder(job_id) / "export"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    files = {
        name: StoredFile(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in FILES.items()
    }
    (folder / "config.json").write_bytes(damage or FILES["config.json"])
    manifest = ExportManifest(name="tiny", step=step, attempt=1, files=files)
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def test_a_model_of_another_server_arrives_as_it_is_and_a_newer_one_takes_its_place(
    served: Served, tmp_path: Path
) -> None:
    home = ["--home", str(served.settings.home), "--url", served.url]
    job, target = served.submit()["id"], tmp_path / "models" / "tiny"
    finish(served, job)
    done = run_bigbatch("export", job[:8], target, *home, "--json")
    assert (done.exit_code, json.loads(done.stdout)["path"]) == (0, str(target))
    assert {file.name: file.read_bytes() for file in target.iterdir() if file.name != "manifest.json"} == FILES
    finish(served, job, step=30)
    assert "The model of step 30 is in" in run_bigbatch("export", job, target, *home).stdout
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]


def test_what_did_not_arrive_as_it_was_written_is_not_stored(served: Served, tmp_path: Path) -> None:
    job = served.submit()["id"]
    finish(served, job, damage=b"[]")
    with Client(served.settings.home, served.url) as client:
        with pytest.raises(DownloadError, match=r"config\.json did not arrive as it was written"):
            download(client, job, tmp_path / "tiny")
        assert not (tmp_path / "tiny").exists()
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").touch()
        with pytest.raises(DownloadError, match="is not an export of bigbatch"):
            download(client, job, tmp_path / "mine")


def test_a_job_without_an_export_is_refused_with_the_servers_own_words(served: Served, tmp_path: Path) -> None:
    job = served.submit()["id"]
    with Client(served.settings.home, served.url) as client, pytest.raises(RefusedError, match="when the last step"):
        download(client, job, tmp_path / "tiny")
    assert read_export(tmp_path / "tiny") is None
