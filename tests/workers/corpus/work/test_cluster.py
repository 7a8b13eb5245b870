"""Text over a Ray cluster of two nodes, which one program starts and ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.contract.spec.data import Data
from workers.corpus.prepare import prepare

ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
ON_TWO_NODES = """
import json, os, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from workers import prepare
from workers.contract.documents import parse_spec, read_file
from workers.contract.run.folder import RunFolder
from workers.contract.text_files import TextFile
from workers.corpus import __main__ as program
from workers.corpus.reading.units import Unit
from workers.corpus.work import pool
from workers.corpus.work.cluster import on_cluster

class Meeting:
    key = "meeting"

    def __call__(self, unit, marks):
        node = ray.get_runtime_context().get_node_id()
        (Path(unit.file.name) / node).touch()
        until = time.monotonic() + 100
        while len(list(Path(unit.file.name).iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        return node.encode()

here = Path(sys.argv[1])
(here / "met").mkdir()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
code = program.main([str(here / "job.yaml"), "--home", str(here / "home"), "--json", "--ray", cluster.address])

unit = Unit(TextFile(str(here / "met")), 0, 1, 1, is_last=True)
nodes = {outcome for _, outcome in on_cluster(Meeting(), [(unit, None)] * 2)}

pool.SMALL_BYTES = 0  # however little it is, the nodes do it
ray.shutdown()
os.environ["RAY_ADDRESS"] = cluster.address  # as Ray has it for a driver
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
folder, spec = RunFolder(here / "run"), parse_spec(read_file(here / "driven.yaml"))
folder.put_spec(spec)
code += prepare.main([str(here / "run"), "--data", str(here / "driven"), "--cluster"])
times = {opened.count(str(path)) for path in (here / "text").iterdir()}
ray.shutdown()
cluster.shutdown()
print(json.dumps({"code": code, "nodes": len(nodes), "times": list(times)}))
"""


def content(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder, also of those within it."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Data:
    (tmp_path / "text").mkdir()
    for number in range(3):
        (tmp_path / "text" / f"{number}.txt").write_text(
            f"Tea is hot. Milk is cold {number} times.\n\nRain falls.\n" * 9
        )
    return Data(corpus=(str(tmp_path / "text"),), vocab=90, deduplicate=True)


def write_job(path: Path, data: Data) -> Path:
    phase = {"seq_len": 16, "global_batch_size": 8, "micro_batch_size": 4, "steps": 1, "lr": 0.01}
    path.write_text(json.dumps({"name": "small", "data": data.model_dump(mode="json"), "phases": [phase]}))
    return path


def test_text_is_prepared_on_the_nodes_of_a_cluster_to_the_same_bytes_as_in_this_process(
    data: Data, tmp_path: Path
) -> None:
    here = prepare(data, tmp_path / "here")
    given = data.model_copy(update={"vocab": str(here / "vocab.txt"), "deduplicate": False})
    write_job(tmp_path / "job.yaml", data)
    write_job(tmp_path / "driven.yaml", given)
    command = [sys.executable, "-c", ON_TWO_NODES, str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    told, found = map(json.loads, done.stdout.splitlines())
    # The preparation of a job opens each file to hash it, and the nodes do the rest.
    assert found == {"code": 0, "nodes": 2, "times": [1]}
    ours, theirs = content(here), content(Path(told["folder"]))
    assert {name: theirs[name] for name in ours} == ours
    driven = prepare(given, tmp_path / "here")
    ours, theirs = content(driven), content(tmp_path / "driven" / driven.name)
    assert {name: theirs[name] for name in ours} == ours
    assert Path("rows-16-3/rows.i64") in theirs, "and the rows of its phase"


def test_a_cluster_that_is_not_there_is_told(data: Data, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", data)
    command = [sys.executable, "-m", "workers.corpus", str(job), "--home", str(tmp_path / "home"), "--ray", "nonsense"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 2
    assert "--ray nonsense: no Ray cluster answers (" in done.stderr
