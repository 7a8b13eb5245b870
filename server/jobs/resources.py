"""What a cluster has, what a worker needs, and what the cluster says of a submission."""

from dataclasses import dataclass
from enum import StrEnum

from workers.planning.size import processors


class Run(StrEnum):
    """What the cluster says of a submission."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Resources:
    """Numbers of CPUs and GPUs."""

    cpus: float = 0
    gpus: float = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpus + other.cpus, self.gpus + other.gpus)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cpus - other.cpus, self.gpus - other.gpus)

    def __mul__(self, count: int) -> "Resources":
        return Resources(self.cpus * count, self.gpus * count)

    def fit(self, room: "Resources") -> bool:
        """Whether these fit into `room`."""
        return self.cpus <= room.cpus and self.gpus <= room.gpus

    def __str__(self) -> str:
        return processors(self.cpus, self.gpus)
