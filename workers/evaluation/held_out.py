"""How good a model is on text that it does not learn. MLPerf's measure: masked accuracy on a fixed set, fixed masks.

The set is the first rows of the held-out text under a seed that is no job's, so every run on a text is judged by the
same rows with the same masks, and two runs compare. The rows are cut into batches by their numbers alone, and the ranks
take turns: what is computed together does not depend on how many ranks there are. Sums are added in float64.

Nothing that training uses changes: no gradient, no dropout, no random number is drawn, no training row is read.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import nn

from workers import ranks
from workers.contract.manifests import VALIDATION
from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase
from workers.model import sharding
from workers.samples.dataset import PreTrainingData

SEED = 2**32
"""Beyond every job's seed, which has 32 bits."""


class Figures(NamedTuple):
    """What an evaluation found; means over all rows of the set."""

    rows: int
    masked: int
    """Positions that the model had to restore."""
    mlm_loss: float
    """Nats a masked position."""
    mlm_accuracy: float
    """Share of the masked positions that were guessed right."""
    nsp_loss: float
    """Nats a row."""
    nsp_accuracy: float
    seconds: float

    @property
    def perplexity(self) -> float:
        """exp of the mean loss over all masked positions, not a mean of the batches' perplexities."""
        try:
            return math.exp(self.mlm_loss)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The set that a phase is judged by."""

    data: PreTrainingData
    rows: int
    batch_size: int

    @classmethod
    def open(cls, corpus: Path, spec: JobSpec, phase: Phase) -> Self:
        """Open the held-out text of a prepared corpus for rows of the phase's length.

        No row repeats text: a set of fewer rows than the job asks for is used whole, once.
        """
        data = PreTrainingData(
            corpus / VALIDATION, seq_len=phase.seq_len, seed=SEED, mask_probability=spec.data.mask_probability
        )
        return cls(data, min(spec.evaluation.sequences, len(data)), phase.micro_batch_size)

    def evaluate(self, model: nn.Module, spec: JobSpec, device: torch.device) -> Figures:
        """Judge the model. Every rank calls this and gets the same figures."""
        begin = time.monotonic()
        sums, masked = torch.zeros(4, dtype=torch.float64, device=device), 0
        with _as_it_is(model), sharding.precision(model, spec):
            for rows, is_mine in self._turns():
                batch = self.data.batch(rows)
                found = torch.stack(model(batch.to(device))).double()
                if is_mine:
                    sums += found
                    masked += len(batch.masked_labels)
        total = ranks.all_reduce_sum(torch.cat([sums, sums.new_tensor([masked])])).tolist()
        return _figures(self.rows, total, time.monotonic() - begin)

    def _turns(self) -> Iterator[tuple[range, bool]]:
        """Yield the rows of this rank's batches, as many batches as on any other rank, and whether they count.

        A sharded model is gathered by all ranks together: a rank that stopped early would leave the others waiting.
        """
        batches = [range(at, min(at + self.batch_size, self.rows)) for at in range(0, self.rows, self.batch_size)]
        for first in range(0, len(batches), ranks.world_size()):
            turn = first + ranks.rank()
            yield (batches[turn], True) if turn < len(batches) else (batches[0], False)


@contextmanager
def _as_it_is(model: nn.Module) -> Iterator[None]:
    """Use the model without dropout and without gradients, and leave it as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
        sharding.reshard(model)


def _figures(rows: int, total: list[float], seconds: float) -> Figures:
    mlm_loss, nsp_loss, mlm_correct, nsp_correct, masked = total
    return Figures(
        rows=rows,
        masked=round(masked),
        mlm_loss=mlm_loss / masked,
        mlm_accuracy=mlm_correct / masked,
        nsp_loss=nsp_loss / rows,
        nsp_accuracy=nsp_correct / rows,
        seconds=seconds,
    )
