"""How the ranks of torchrun find each other on one machine: by a store that other machines and users cannot reach.

torchrun's own store listens on every address of the machine, and whoever connects to it can read and write.
"""

import socket

from torch._C._distributed_c10d import TCPStore  # what torch.distributed hands on, with its types
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

NAME = "loopback"
_HOST = "127.0.0.1"


class Loopback(RendezvousHandler):
    """The rendezvous of a single torchrun; its ranks connect to the store that it holds."""

    def __init__(self, run_id: str) -> None:
        self._run_id, self._is_closed = run_id, False
        listening = socket.create_server((_HOST, 0))
        self._port = int(listening.getsockname()[1])
        self._store = TCPStore(
            _HOST, self._port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
        )

    @property
    def use_agent_store(self) -> bool:
        """Whether the ranks use this store, too."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Return at once: there is nobody to wait for."""
        return RendezvousInfo(self._store, 0, 1, RendezvousStoreInfo(_HOST, self._port))

    def get_backend(self) -> str:
        """Return the name that torchrun knows it by."""
        return NAME

    def get_run_id(self) -> str:
        """Return what torchrun calls this run."""
        return self._run_id

    def is_closed(self) -> bool:
        """Whether torchrun has closed it."""
        return self._is_closed

    def set_closed(self) -> None:
        """Close it."""
        self._is_closed = True

    def num_nodes_waiting(self) -> int:
        """Return how many other machines want to join: none can."""
        return 0

    def shutdown(self) -> bool:
        """End it."""
        return True


def offer() -> None:
    """Let torchrun find it by its name."""
    rendezvous_handler_registry.register(NAME, _make)


def _make(parameters: RendezvousParameters) -> RendezvousHandler:
    return Loopback(parameters.run_id)
