"""The HTTP interface: the only part of the server that imports FastAPI."""
