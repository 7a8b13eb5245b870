"""LAMB for large batches, exact on sharded parameters: `from optim import Lamb`."""

from .kernels.operators import backend
from .lamb import Lamb
from .last_step import LastStep
from .schedules import Schedule, untuned
from .variants import VARIANTS

__all__ = ["VARIANTS", "Lamb", "LastStep", "Schedule", "backend", "untuned"]
