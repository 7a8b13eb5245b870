"""LAMB for large batches, exact on sharded parameters: `from optim import Lamb`."""

from .lamb import Lamb
from .last_step import LastStep
from .ops import backend
from .schedules import Schedule, untuned

__all__ = ["Lamb", "LastStep", "Schedule", "backend", "untuned"]
