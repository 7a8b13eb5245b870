"""The smallest Hugging Face hub: one data set, as much as its own client needs to list and to read it."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

NAME = "somebody/texts"
_INFO = f"/api/datasets/{NAME}"
_TREE, _FILE = f"{_INFO}/tree/main", f"/datasets/{NAME}/resolve/main/"


class Hub:
    """Serves the files of a folder as the data set `somebody/texts`; `read` are the names of those that were read."""

    def __init__(self, folder: Path) -> None:
        self.read: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                if path.startswith(_FILE):
                    hub.read.append(path.removeprefix(_FILE))
                    begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                    self.answer(206, (folder / hub.read[-1]).read_bytes()[begin : end + 1])
                elif path == _TREE:
                    self.answer(200, json.dumps([_entry(folder, each) for each in sorted(folder.rglob("*"))]).encode())
                elif path == _INFO:
                    self.answer(200, json.dumps({"id": NAME, "sha": "0" * 40, "siblings": []}).encode())
                else:
                    self.answer(404, b"{}")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    content = path.read_bytes()
    return {"type": "file", "path": name, "oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
