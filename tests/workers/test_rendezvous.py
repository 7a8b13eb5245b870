import os
import subprocess
import sys

RANK_0 = """
import os, psutil
import torch.distributed as dist
from workers import rendezvous
host, port = rendezvous._listen()
print(host, port, flush=True)
os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
rendezvous.join("gloo")
sockets = [each.laddr for each in psutil.Process().net_connections("inet") if each.status == psutil.CONN_LISTEN]
print(dist.get_rank(), dist.get_world_size(), *{each.ip for each in sockets if each.port == port})
dist.destroy_process_group()
"""
RANK_1 = """
import torch.distributed as dist
from workers import rendezvous
rendezvous.join("gloo")
print(dist.get_rank(), dist.get_world_size())
dist.destroy_process_group()
"""


def start(script: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)


def test_two_ranks_meet_at_a_port_that_only_the_address_of_the_first_one_has() -> None:
    first = start(RANK_0, RANK="0", WORLD_SIZE="2")
    assert first.stdout is not None
    host, port = first.stdout.readline().split()
    second = start(RANK_1, RANK="1", WORLD_SIZE="2", MASTER_ADDR=host, MASTER_PORT=port)
    assert first.communicate()[0].split() == ["0", "2", host]
    assert second.communicate()[0].split() == ["1", "2"]
    assert first.returncode == second.returncode == 0


def test_what_starts_the_ranks_does_not_load_torch() -> None:
    script = "import sys, workers.launch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
