"""Where a server keeps its files and where it listens."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
OWN_PATHS = frozenset({"docs", "healthz", "jobs", "login", "logout", "metrics", "readyz", "static", "v1"})
"""What the paths of pages and routes begin with."""
_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 -- compared with, not bound to


def default_home() -> Path:
    """Return the folder that BIGBATCH_HOME names, or ~/.bigbatch."""
    return Path(os.environ.get("BIGBATCH_HOME") or "~/.bigbatch").expanduser()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between two servers on one machine."""

    home: Path = field(default_factory=default_home)
    """Folder of the database, the runs, the prepared data, the tokens and the state of the local cluster."""
    host: str = "127.0.0.1"
    port: int = 8000
    ray_address: str | None = None
    """URL of the head node of a Ray cluster that is there already; None for one on this machine."""
    storage: str | None = None
    """URL below which what new jobs store is kept, each under its id; None for the run folders under `home`."""
    data_roots: tuple[Path, ...] = ()
    """Folders of this machine that jobs may name files in; where there are none, all but those of the system."""
    priority_per_hour: float = 1.0
    """So much does an hour of waiting raise a job's priority."""
    jobs_per_owner: int | None = None
    """So many jobs of one owner may be on the cluster at a time; None where there is no limit."""

    log_json: bool = False
    """Whether each line of the log is a JSON object, for a program that collects logs, and not for people."""

    tls_cert: Path | None = None
    """PEM file with the server's certificate, followed by those that signed it; None for plain HTTP."""
    tls_key: Path | None = None
    """PEM file with the key of that certificate; None where the same file holds both."""
    without_tls: bool = False
    """Whether other machines may reach the server by plain HTTP, where everybody on the way can read the tokens."""

    root_path: str = ""
    """Path in front of all pages and routes where a proxy serves others beside it, such as /bigbatch; else empty."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies that are believed when they name the client's address and scheme."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names by which a proxy calls the server, beside the server's own."""

    def __post_init__(self) -> None:
        # Runs have another working folder.
        object.__setattr__(self, "home", self.home.expanduser().absolute())
        object.__setattr__(self, "data_roots", tuple(root.expanduser().resolve() for root in self.data_roots))
        root = self.root_path.strip("/")
        object.__setattr__(self, "root_path", f"/{root}" if root else "")

    @property
    def url(self) -> str:
        """Where a process on this machine reaches the server."""
        return self._url("127.0.0.1" if self.host in _EVERYWHERE else self.host)

    @property
    def url_for_runs(self) -> str:
        """Where a run reaches the server, on whichever node it is."""
        return self._url(socket.gethostname()) if self.has_other_nodes and self.host in _EVERYWHERE else self.url

    def _url(self, host: str) -> str:
        scheme = "http" if self.tls_cert is None else "https"
        name = f"[{host}]" if ":" in host else host
        return f"{scheme}://{name}:{self.port}{self.root_path}"

    @property
    def names(self) -> frozenset[str]:
        """Host names by which the server may be called, in lower case; empty where every name will do."""
        if not self.is_loopback and not self.allowed_hosts:
            return frozenset()
        own = (urlsplit(url).hostname or "" for url in (self.url, self.url_for_runs))
        return _LOOPBACK | {name.lower() for name in (*own, *self.allowed_hosts)}

    @property
    def has_other_nodes(self) -> bool:
        """Whether jobs run on a cluster whose head node is another machine."""
        return self.ray_address is not None and urlsplit(self.ray_address).hostname not in _LOOPBACK

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in _LOOPBACK

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.home / "bigbatch.db"

    @property
    def admin_token(self) -> Path:
        """The file with the token that may do everything."""
        return self.home / "admin.token"

    @property
    def ray(self) -> Path:
        """State of the local Ray cluster."""
        return self.home / "ray"

    @property
    def ray_token(self) -> Path:
        """The file with the token of that cluster."""
        return self.ray / "ray.token"

    @property
    def server_file(self) -> Path:
        """Written by a running server: its URL and process number, for the command line to find."""
        return self.home / "server.json"

    @property
    def lock(self) -> Path:
        """Locked by a running server, so that a home has at most one."""
        return self.home / "server.lock"

    @property
    def data(self) -> Path:
        """Text prepared for training, once for each content."""
        return self.home / "data"

    def run_folder(self, job_id: str) -> Path:
        """Return the one folder of all attempts of a job."""
        return self.home / "runs" / job_id
