from pathlib import Path

import pytest

from workers.contract.problems import SpecError
from workers.contract.run.storage import check_is, check_url, keep, storage_of


def test_a_new_run_is_stored_below_the_base_under_the_name_of_its_folder(tmp_path: Path) -> None:
    assert storage_of(tmp_path / "demo", "s3://bucket/runs/") == "s3://bucket/runs/demo"
    assert storage_of(tmp_path / "demo") is None


def test_a_run_stays_where_it_was_begun(tmp_path: Path) -> None:
    keep(tmp_path, "s3://first/demo")
    assert storage_of(tmp_path) == storage_of(tmp_path, "s3://second") == "s3://first/demo"
    assert (tmp_path / "storage.json").stat().st_mode & 0o777 == 0o600


def test_a_run_that_was_begun_in_its_folder_stays_there(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert storage_of(tmp_path, "s3://bucket") is None
    with pytest.raises(
        SpecError, match=r"--storage = .*is stored in that folder\. Remedy: leave it out, or name another folder"
    ):
        check_is(tmp_path, "s3://bucket")


def test_another_base_than_that_of_the_beginning_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    keep(run, "s3://first/demo")
    assert check_is(run, "s3://first") == check_is(run, None) == "s3://first/demo"
    with pytest.raises(SpecError, match=r"--storage = .*is stored in s3://first/demo"):
        check_is(run, "s3://second")


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(SpecError, match="holds a user or a password") as refused:
        check_url("s3://key:secret@bucket/runs")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["runs", "/data/runs", "s3://", "s3:///", "file:///tmp", "s3://bucket/*", "s3://b?x=1"])
def test_what_is_not_the_url_of_a_folder_is_refused(url: str) -> None:
    with pytest.raises(
        SpecError, match=r"--storage = .*is not the URL of a folder\. Remedy: write a URL such as s3://"
    ):
        check_url(url)


def test_a_file_that_cannot_be_read_is_named_with_what_belongs_into_it(tmp_path: Path) -> None:
    (tmp_path / "storage.json").write_text("{}")
    with pytest.raises(SpecError, match=r"storage = .*storage\.json.* cannot be read\. Remedy: write .*s3://BUCKET"):
        storage_of(tmp_path)
