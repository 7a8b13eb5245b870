import subprocess
import sys
from pathlib import Path

RANK = """
import os, psutil, socket, sys
import torch.distributed as dist
dist.init_process_group("gloo")
assert dist.get_world_size() == 2
if dist.get_rank() == 0:
    agent = psutil.Process().parent()
    sockets = [each.laddr for each in agent.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    ours = [each.laddr for each in psutil.Process().net_connections("inet") if each.status == psutil.CONN_LISTEN]
    of_store = [each.ip for each in sockets + ours if each.port == int(os.environ["MASTER_PORT"])]
    everywhere = [each for each in sockets + ours if each.ip in ("0.0.0.0", "::")]
    print("store", *of_store, "everywhere", *everywhere, flush=True)
dist.barrier()
dist.destroy_process_group()
"""
RUN = """
import sys
from torch.distributed.run import main
from workers.loopback import offer
offer()
main(["--rdzv-backend", "loopback", "--rdzv-endpoint", "127.0.0.1", "--nproc-per-node", "2", sys.argv[1]])
"""


def test_the_store_that_the_ranks_of_torchrun_meet_in_listens_on_loopback_alone(tmp_path: Path) -> None:
    rank = tmp_path / "rank.py"
    rank.write_text(RANK)
    done = subprocess.run([sys.executable, "-c", RUN, str(rank)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "store 127.0.0.1 everywhere\n"
