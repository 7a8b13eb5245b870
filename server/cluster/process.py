"""The processes of the local Ray cluster: how they are started, found again after a crash, and all ended.

Every process that Ray starts inherits one environment variable, by which we recognise it as ours. A user's own Ray is
never touched, and several homes run side by side, because every port is chosen among the free ones.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from server.ports import free_ports
from workers.contract.files import read_json, secret, write_private

from . import temporary
from .identity import start_of
from .processors import processors

_MARK = "BIGBATCH_CLUSTER"
_NODE_IP = "127.0.0.1"
OBJECT_STORE_BYTES = 100 * 2**20
_LONGEST_TMP = 20  # our folder and Ray's sockets add 86 characters, and a path of a unix socket has at most 107
_TERM_S, _KILL_S = 3.0, 5.0


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What `cluster.json` holds: the head process and where it listens."""

    pid: int
    started: str  # what `start_of` returned
    dashboard_port: int
    agent_port: int
    was_ready: bool = False

    @property
    def dashboard(self) -> str:
        """URL of the Jobs API."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def agent(self) -> str:
        """URL of the agent that starts the jobs' drivers."""
        return f"http://127.0.0.1:{self.agent_port}"


_STATE = TypeAdapter(ClusterState)


class ClusterProcess:
    """One Ray head node and every process that it started; its state is kept in `folder`."""

    def __init__(self, folder: Path, num_cpus: int | None = None) -> None:
        self.folder = folder.resolve()
        self._state_file = self.folder / "cluster.json"
        self._num_cpus = num_cpus or max(2, processors())
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:10]
        system = tempfile.gettempdir()
        self._temp = Path(system if len(system) <= _LONGEST_TMP else "/tmp") / f"bigbatch-{digest}"  # noqa: S108

    @property
    def temp_dir(self) -> Path:
        """The folder of Ray's sockets and logs."""
        return temporary.place(self._temp)

    @property
    def token(self) -> str:
        """The token that this cluster asks for."""
        return secret(self.folder / "ray.token")

    def find(self) -> ClusterState | None:
        """Return the running cluster, even if another server started it; None if there is none."""
        state = self._state()
        return state if state is not None and start_of(state.pid) == state.started else None

    def ended(self) -> ClusterState | None:
        """Return the cluster that was started and has ended by itself; None if there is none."""
        return None if self.find() else self._state()

    def runs_without_state(self) -> list[psutil.Process]:
        """Return the living runs on a cluster whose state is there, but cannot be read."""
        if not self._state_file.exists() or self._state() is not None:
            return []
        return [process for process in self.processes() if " workers." in _title(process)]

    def start(self) -> None:
        """Start a new cluster, after ending what is left of an old one; it is not ready yet."""
        self.stop()
        temporary.make(self._temp)
        secret(self.folder / "ray.token")
        dashboard, agent, gcs, metrics, *others = free_ports(9)
        with (self.folder / "ray.log").open("wb") as output:
            process = subprocess.Popen(
                self._command(dashboard, agent, gcs, others),
                env=self._environment(gcs, metrics),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if started := start_of(process.pid):  # else it has failed already, which `find` tells
            self._save(ClusterState(process.pid, started, dashboard, agent))
        process.returncode = 0  # it may outlive us on purpose, which Popen would report as a leak

    def mark_ready(self, state: ClusterState) -> None:
        """Remember that this cluster has answered once."""
        self._save(ClusterState(**asdict(state) | {"was_ready": True}))

    def processes(self) -> list[psutil.Process]:
        """Return every living process of this cluster, orphans too."""
        # Ray's Python processes write their titles over the mark; their parents are known by it.
        marked = {process for process in psutil.process_iter() if self._is_marked(process)}
        return [process for process in marked | _descendants(marked) if _is_alive(process)]

    def suspended(self) -> list[psutil.Process]:
        """Return Ray's own processes that somebody has stopped with SIGSTOP, which is not their end."""
        state = self.find()
        if state is None:
            return []
        head = psutil.Process(state.pid)
        # Below the raylet, titles begin so: agents, workers and whatever else a job may stop by itself.
        ours = [head, *(each for each in head.children(recursive=True) if not _title(each).startswith("ray::"))]
        return [process for process in ours if _status(process) == psutil.STATUS_STOPPED]

    def stop(self) -> None:
        """End every process of this cluster, and no other, and remove what they left in the temporary folder."""
        ours = self.processes()
        _signal(ours, "terminate")
        psutil.wait_procs(ours, timeout=_TERM_S)
        while alive := self.processes():  # also those that were being started meanwhile
            _signal(alive, "kill")
            psutil.wait_procs(alive, timeout=_KILL_S)
        if state := self._state():
            with contextlib.suppress(ChildProcessError):  # another server started it
                os.waitpid(state.pid, os.WNOHANG)  # a head that ended by itself would stay in the list of processes
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        self._state_file.unlink(missing_ok=True)

    def log_tail(self, characters: int = 2000) -> str:
        """Return the end of what the head process printed."""
        path = self.folder / "ray.log"
        return path.read_text(errors="replace")[-characters:].strip() if path.exists() else ""

    def _command(self, dashboard: int, agent: int, gcs: int, others: list[int]) -> list[str]:
        options = {
            "node-ip-address": _NODE_IP,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "port": gcs,
            "dashboard-agent-grpc-port": others[0],
            "runtime-env-agent-port": others[1],
            "ray-client-server-port": others[2],
            "object-manager-port": others[3],
            "node-manager-port": others[4],
            "num-cpus": self._num_cpus,
            "object-store-memory": OBJECT_STORE_BYTES,
            "temp-dir": self.temp_dir / "r",  # Ray opens its own folder to everybody
            "log-style": "record",
            "log-color": "false",
        }
        named = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--head", "--block", *named]

    def _environment(self, gcs: int, metrics: int) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        if (
            not _has_home()
        ):  # a container's user by number alone: Ray Train and PyTorch look for one when they are imported
            inherited["HOME"] = str(self.folder)
        return inherited | {
            _MARK: str(self.folder),
            # A folder named workers or ray where a process stands is not the package.
            "PYTHONSAFEPATH": "1",
            # Names of files and what is in them are UTF-8, whatever the locale of the server.
            "PYTHONUTF8": "1",
            # Actors that look for "the" cluster of this machine must find this one, and no other that runs beside it.
            "RAY_ADDRESS": f"{_NODE_IP}:{gcs}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "ray.token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            # One process less that imports for seconds before the ranks begin: nobody preempts this machine's own node.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
            # Ray would run its workers at niceness 15: they would yield to everything else, and they are the work.
            "RAY_worker_niceness": "0",
            # By default Ray replaces a loopback address by one that other machines reach, and listens there.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "AUTOSCALER_METRIC_PORT": str(metrics),
            "DASHBOARD_METRIC_PORT": "0",
        }

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(_MARK) == str(self.folder)
        except psutil.Error:  # it ended meanwhile, or belongs to somebody else
            return False

    def _state(self) -> ClusterState | None:
        try:
            return _STATE.validate_python(read_json(self._state_file))
        except ValidationError:  # there is none, another version wrote it, or somebody changed it
            return None

    def _save(self, state: ClusterState) -> None:
        write_private(self._state_file, json.dumps(asdict(state)))


def _has_home() -> bool:
    try:
        return bool(Path.home())
    except RuntimeError:
        return False


def _descendants(processes: set[psutil.Process]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(process.children(recursive=True))
    return found


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and _status(process) not in {None, psutil.STATUS_ZOMBIE}


def _status(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status()
    return None


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _signal(processes: list[psutil.Process], how: str) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            getattr(process, how)()
