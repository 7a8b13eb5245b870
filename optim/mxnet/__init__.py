"""MXNet 2's LAMB on torch tensors, for training loops that are moved over: `from optim.mxnet import LAMB, Updater`."""

from .lamb import LAMB
from .schedulers import CosineScheduler, FactorScheduler, MultiFactorScheduler, PolyScheduler
from .updater import Updater

__all__ = ["LAMB", "CosineScheduler", "FactorScheduler", "MultiFactorScheduler", "PolyScheduler", "Updater"]
