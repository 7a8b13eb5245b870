"""An S3 server in this process, with buckets for tests; it can refuse what it is told to, as one that is full does."""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

_FULL = b"<Error><Code>QuotaExceeded</Code><Message>The bucket is full</Message></Error>"


def nothing(_method: str, _path: str) -> bool:
    """Refuse nothing."""
    return False


class S3:
    """The server.

    Attributes:
        refuses: Says of the method and path of a request whether it is answered that the bucket is full.
        environment: The variables by which a process finds the server, and may use it.
    """

    def __init__(self) -> None:
        self.refuses: Callable[[str, str], bool] = nothing
        self._app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self.refuses(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            Request(environ).get_data()
            return Response(_FULL, 403, mimetype="application/xml")(environ, start_response)
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer

    def make_bucket(self) -> str:
        """Make an empty bucket and return its URL."""
        name = f"bucket-{secrets.token_hex(4)}"
        boto3.client("s3").create_bucket(Bucket=name)
        return f"s3://{name}"


@contextmanager
def serving() -> Iterator[S3]:
    """Serve, as long as the block runs, what the environment then names as the one and only S3."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it tells of every request
    s3 = S3()
    thread = threading.Thread(target=s3.server.serve_forever, daemon=True)
    thread.start()
    before = dict(os.environ)
    os.environ |= s3.environment
    S3FileSystem.clear_instance_cache()  # one that was made before knows another server
    try:
        yield s3
    finally:
        S3FileSystem.clear_instance_cache()
        s3.server.shutdown()
        thread.join()
        s3.server.server_close()
        os.environ.clear()
        os.environ.update(before)
