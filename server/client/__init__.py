"""The REST API from Python: `from server.client import Client`, or `AsyncClient`."""

from .asynchronous import AsyncClient
from .client import Client

__all__ = ["AsyncClient", "Client"]
