import io
import os
import tarfile
from pathlib import Path

from tests.serving import Served
from workers.contract.exports import ExportManifest
from workers.contract.manifests import StoredFile

FILES = {"config.json": b"{}", "empty.txt": b"", "model.safetensors": os.urandom(3 * 2**20 + 5)}


def finish(folder: Path) -> None:
    """Write what a finished export has."""
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    sizes = {name: StoredFile(size_bytes=len(content)) for name, content in FILES.items()}
    manifest = ExportManifest(name="tiny", step=20, attempt=1, files=sizes)
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def test_a_finished_export_is_one_archive_of_a_known_size(served: Served, tmp_path: Path) -> None:
    job = served.submit()
    finish(served.settings.run_folder(job["id"]) / "export")
    answer = served.http.get(f"/v1/jobs/{job['id']}/export").raise_for_status()
    assert answer.headers["content-disposition"] == 'attachment; filename="tiny-step-20.tar"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path, filter="data")
    found = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    assert found.pop("manifest.json")
    assert found == FILES


def test_a_job_without_an_export_says_when_or_how_there_will_be_one(served: Served) -> None:
    job = served.submit()
    waiting = served.http.get(f"/v1/jobs/{job['id']}/export")
    assert waiting.status_code == 404
    assert waiting.json()["detail"].endswith("is QUEUED: its model is exported when the last step is done")
    served.http.post(f"/v1/jobs/{job['id']}/cancel")
    ended = served.http.get(f"/v1/jobs/{job['id']}/export").json()
    assert f"`bigbatch export {job['id']}` on the server's machine" in ended["detail"]
    never = served.submit(export={"at_end": False})
    detail = served.http.get(f"/v1/jobs/{never['id']}/export").json()["detail"]
    assert "has export: {at_end: false}" in detail
    assert served.http.get("/v1/jobs/000000000000/export").json()["title"] == "There is no such job."


def test_an_export_that_is_not_whole_is_none(served: Served) -> None:
    job = served.submit()
    folder = served.settings.run_folder(job["id"]) / "export"
    finish(folder)
    (folder / "model.safetensors").unlink()
    assert "is being replaced" in served.http.get(f"/v1/jobs/{job['id']}/export").json()["detail"]
    (folder / "manifest.json").unlink()
    assert served.http.get(f"/v1/jobs/{job['id']}/export").status_code == 404
