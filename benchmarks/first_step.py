"""Where the time goes from the submission of a job to its first step: every process that Ray starts for it.

    python benchmarks/first_step.py

A server with its local cluster serves an empty home. The same small job is submitted twice: the first one prepares its
text and finds no kernel's cache warm, the second finds both. For each, the processes are listed in the order of their
start, with the processor time they had taken when the first step was done. Processor time does not depend on what else
the machine is doing; the seconds until RUNNING and until the first step do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from server.cluster.process import ClusterProcess
from server.ports import free_ports
from server.settings import Settings

PATIENCE_S = 600.0
INTERVAL_S = 0.2
LEAST_S = 0.1
BIGBATCH = [sys.executable, "-m", "server"]
JOB: dict[str, Any] = {
    "model": {"preset": "bert-tiny", "max_positions": 64},
    "data": {"corpus": ["builtin:austen"], "vocab": 1024},
    "phases": [{"seq_len": 64, "global_batch_size": 8, "micro_batch_size": 4, "steps": 3, "lr": 0.01}],
    "parallel": {"workers": 2},
}


@dataclass
class Start:
    """What was seen of one start; all times in seconds since the submission."""

    name: str
    marks_s: dict[str, float] = field(default_factory=dict)
    processes: dict[int, dict[str, Any]] = field(default_factory=dict)

    def look(self, submitted: float, processes: list[psutil.Process]) -> None:
        """Note every process that was started since the submission, and the processor time it has taken."""
        for process in processes:
            try:
                with process.oneshot():
                    started_s = process.create_time() - submitted
                    if started_s > 0:
                        used = process.cpu_times()
                        row = {"started_s": started_s, "cpu_s": used.user + used.system, "title": title(process)}
                        self.processes[process.pid] = row
            except psutil.Error:  # it has ended; what was seen last stays
                continue

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"start": self.name, **self.marks_s, "processes": self.in_order()}

    def in_order(self) -> list[dict[str, Any]]:
        """Return the processes as they were started, without those that did next to nothing, such as a shell's."""
        worked = [row for row in self.processes.values() if row["cpu_s"] >= LEAST_S]
        return sorted(worked, key=lambda row: float(row["started_s"]))


def title(process: psutil.Process) -> str:
    """Return what a process calls itself, without paths and ports."""
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return words[0]
    if "-m" in words:
        return "python -m " + words[words.index("-m") + 1]
    return " ".join(Path(word).name for word in words[:2])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    as_json: bool = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "home", port=free_ports(1)[0])
        server = subprocess.Popen(
            [*BIGBATCH, "serve", "--home", str(settings.home), "--port", str(settings.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            cluster = ClusterProcess(settings.ray)
            wait_until(lambda: is_ready(cluster), "the cluster takes jobs")
            for name in ("new home", "warm"):
                report(measure(name, settings, cluster), as_json=as_json)
        finally:
            server.terminate()
            server.wait(60)
            cluster.stop()


def measure(name: str, settings: Settings, cluster: ClusterProcess) -> Start:
    """Submit the job and watch its start."""
    start = Start(name)
    job_file = settings.home / "first-step.yaml"
    job_file.write_text(yaml.safe_dump({"name": name.replace(" ", "-"), **JOB}))
    submitted = time.time()
    command = [*BIGBATCH, "submit", str(job_file), "--home", str(settings.home), "--json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    events = settings.home / "runs" / json.loads(answer)["id"] / "events.jsonl"

    def has_stepped() -> bool:
        start.look(submitted, cluster.processes())
        for record in records(events):
            kind = str(record.get("status", record["kind"]))
            start.marks_s.setdefault(f"{kind}_s", time.time() - submitted)
            if kind == "FAILED":
                raise RuntimeError(f"the job failed: {record['error']}")
        return "step_s" in start.marks_s

    wait_until(has_stepped, f"the first step of {name}")
    wait_until(lambda: any(record.get("status") == "SUCCEEDED" for record in records(events)), "the end of the job")
    return start


def is_ready(cluster: ClusterProcess) -> bool:
    """Return whether the server has seen its cluster take jobs."""
    state = cluster.find()
    return state is not None and state.was_ready


def records(events: Path) -> list[dict[str, Any]]:
    """Return the whole records of a journal; none where there is no journal yet."""
    lines = events.read_text().splitlines(keepends=True) if events.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again; fail when it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:g} s for: {what}")
        time.sleep(INTERVAL_S)


def report(start: Start, *, as_json: bool) -> None:
    """Print one start."""
    if as_json:
        print(json.dumps(start.as_dict()))
        return
    print(start.name + ": " + ", ".join(f"{name[:-2]} {seconds:.1f} s" for name, seconds in start.marks_s.items()))
    for row in start.in_order():
        print(f"  {row['started_s']:6.1f} s  {row['cpu_s']:6.1f} s of processor  {row['title']}")
    print(f"  together {sum(row['cpu_s'] for row in start.processes.values()):.1f} s of processor")


if __name__ == "__main__":
    main()
