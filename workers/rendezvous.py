"""How the ranks of an attempt find each other on Ray, without torch in the processes that only start them.

`ray.train.torch` does the same, but its driver and its controller load torch first, one after the other, for seconds.
It also looks for a free port and opens it only later, on all addresses of its machine: meanwhile somebody else may have
taken the port, and afterwards everybody who reaches the machine can write to the store.
"""

import os
import socket
from datetime import timedelta
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from .training.safety.signals import heed_sigterm

COLLECTIVE_TIMEOUT = timedelta(minutes=5)
"""A rank that hangs in a collective is given up after this."""

_listening: socket.socket | None = None  # in the process of rank 0, from `_listen` until `join`


class Rendezvous(BackendConfig):  # type: ignore[misc] # not typed
    """Has the workers of a Ray trainer meet: each calls `join` before anything else."""

    @property
    def backend_cls(self) -> type["_Rendezvous"]:
        """What Ray Train calls."""
        return _Rendezvous


class _Rendezvous(Backend):  # type: ignore[misc] # not typed
    share_cuda_visible_devices = True
    """The ranks of a node see all of its GPUs, and each takes that of its LOCAL_RANK."""

    def on_start(self, worker_group: Any, _config: BackendConfig) -> None:
        host, port = worker_group.execute_single(0, _listen)
        worker_group.execute(_describe, host, port)

    def on_training_start(self, worker_group: Any, _config: BackendConfig) -> None:
        worker_group.execute(heed_sigterm)  # in the main thread of each worker; the loop runs in another


def _listen() -> tuple[str, int]:
    """Open the port of the store on the address by which Ray's nodes know this one."""
    global _listening  # noqa: PLW0603 -- a socket cannot travel, and is needed by a later call in this process
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    _listening = socket.create_server((host, 0), family=family)
    return host, int(_listening.getsockname()[1])


def _describe(host: str, port: int) -> None:
    """Set what torchrun sets, too."""
    context = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
    }


def join(backend: str) -> None:
    """Join the other ranks in a process group of torch; return when all of them have come.

    Args:
        backend: "nccl" or "gloo".

    Raises:
        torch.distributed.DistStoreError: some rank has not come within `COLLECTIVE_TIMEOUT`.
    """
    import torch.distributed as dist
    from torch._C._distributed_c10d import TCPStore  # what torch.distributed hands on, with its types

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world_size,
        is_master=rank == 0,
        timeout=COLLECTIVE_TIMEOUT,
        master_listen_fd=_listening.detach() if _listening else None,
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT)
