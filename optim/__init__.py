"""LAMB for large batches, exact on sharded parameters: `from optim import Lamb`."""

from .lamb import Lamb, LastStep
from .schedules import Schedule, untuned

__all__ = ["Lamb", "LastStep", "Schedule", "untuned"]
