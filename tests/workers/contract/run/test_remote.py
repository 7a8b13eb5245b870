"""What is special about a store on another machine: its errors, and what other machines do there meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.workers.object_store import S3
from workers.contract.run.remote import RemoteStore, StorageError

PUT = """
import sys
from workers.contract.run.remote import RemoteStore, StorageError
try:
    RemoteStore(sys.argv[1]).put("name", b"content")
except StorageError as error:
    print(error)
"""


def said_of_a_put(url: str, environment: dict[str, str], *options: str) -> str:
    """What another process says where it cannot put an object; its environment knows of no other S3."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [sys.executable, *options, "-c", PUT, url]
    done = subprocess.run(command, env=ours | environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def client() -> "boto3.client":
    return boto3.client("s3")


def test_what_others_add_and_remove_is_seen_at_once(bucket: str) -> None:
    name = bucket.removeprefix("s3://")
    store = RemoteStore(f"{bucket}/run")
    assert (store.list(), store.has("theirs")) == ([], False)
    client().put_object(Bucket=name, Key="run/theirs", Body=b"content")
    assert (store.list(), store.has("theirs"), store.read("theirs")) == (["theirs"], True, b"content")
    client().delete_object(Bucket=name, Key="run/theirs")
    assert (store.list(), store.has("theirs")) == ([], False)


def test_the_empty_object_that_a_console_makes_for_a_folder_is_none(bucket: str) -> None:
    client().put_object(Bucket=bucket.removeprefix("s3://"), Key="run/checkpoints/", Body=b"")
    assert RemoteStore(f"{bucket}/run").list() == []


def test_parts_that_were_given_up_are_not_left_in_the_bucket(bucket: str) -> None:
    def write() -> None:
        with RemoteStore(bucket).writing("name") as file:
            file.write(bytes(60 * 2**20))  # more than one part
            raise RuntimeError("told to end")

    with pytest.raises(RuntimeError, match="told to end"):
        write()
    found = client().list_multipart_uploads(Bucket=bucket.removeprefix("s3://"))
    assert not found.get("Uploads")


def test_a_bucket_that_is_not_there_is_told_of_and_never_taken_for_an_empty_one(s3: S3) -> None:  # noqa: ARG001
    store = RemoteStore("s3://no-such-bucket/run")
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/run: .* does not exist; check the name of the bucket"):
        store.list()
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/run/name: .* does not exist; check the name"):
        store.put("name", b"")


def test_an_upload_that_is_refused_says_what_the_server_says(s3: S3, bucket: str) -> None:
    store = RemoteStore(bucket)
    s3.refuses = lambda method, path: method in {"PUT", "POST"} and "full" in path
    with pytest.raises(StorageError, match=rf"{bucket}/full: OSError: .*The bucket is full"):
        store.put("full", b"content")
    with (
        pytest.raises(StorageError, match=rf"{bucket}/full: OSError: .*The bucket is full"),
        store.writing("full") as f,
    ):
        f.write(b"content")
    assert store.list() == []


def test_an_object_that_cannot_be_looked_at_is_not_taken_for_missing(s3: S3, bucket: str) -> None:
    s3.refuses = lambda method, path: method == "HEAD" and "closed" in path
    with pytest.raises(StorageError, match=f"{bucket}/closed: PermissionError: .*credentials that may list, read"):
        RemoteStore(bucket).has("closed")


def test_without_credentials_the_error_names_the_variables(s3: S3) -> None:
    known = {name: s3.environment[name] for name in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED")}
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull}
    said = said_of_a_put("s3://bucket/run", known | nowhere)
    assert said.startswith("s3://bucket/run/name: NoCredentialsError: ")
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in said


def test_where_no_server_answers_the_error_names_its_address(s3: S3) -> None:
    said = said_of_a_put(
        "s3://bucket/run", s3.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    )
    assert said.startswith("s3://bucket/run/name: EndpointConnectionError: ")
    assert "http://127.0.0.1:9" in said
    assert "check the network, and AWS_ENDPOINT_URL" in said


def test_without_the_package_the_error_says_how_to_install_it(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "s3fs.py").write_text("raise ImportError('No module named s3fs')")  # stands before the installed one
    said = said_of_a_put("s3://bucket/run", s3.environment | {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"})
    assert said == (
        "s3://bucket/run/name: ImportError: Install s3fs to access S3; for s3:// that is: pip install 'bigbatch[s3]'"
    )


def test_a_url_of_an_unknown_kind_is_refused_with_one_that_is_known() -> None:
    with pytest.raises(StorageError, match=r"xyz://place/name: .*; name a place that fsspec knows, such as s3://"):
        RemoteStore("xyz://place").put("name", b"")
