"""The REST API from Python: `from server.client import Client`."""

from .client import Client

__all__ = ["Client"]
