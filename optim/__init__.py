"""LAMB for large batches, exact on sharded parameters: `from optim import Lamb`."""

from .lamb import Lamb
from .last_step import LastStep
from .ops import backend
from .schedules import Schedule, untuned
from .variants import VARIANTS

__all__ = ["VARIANTS", "Lamb", "LastStep", "Schedule", "backend", "untuned"]
