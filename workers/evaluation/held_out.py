"""How good a model is on text that it does not learn. MLPerf's measure: masked accuracy on a fixed set, fixed masks.

The set is the first rows of the held-out text under a seed that is no job's, so every run on a text is judged by the
same rows with the same masks, and two runs compare. The rows are cut into batches by their numbers alone, and the ranks
take turns: what is computed together does not depend on how many ranks there are. Each rank computes in float32 on a
whole copy of the weights, whatever training computes in and however it shards them, and sums are added in float64.
Suffixes: M masked positions, B samples, V tokens of the vocabulary, N labels of C classes, S the fields of _Sums.

Nothing that training uses changes: no gradient, no dropout, no random number is drawn, no training row is read.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from workers import ranks
from workers.contract.manifests import VALIDATION
from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase
from workers.model.bert import PretrainingBert
from workers.model.sharding import whole
from workers.samples.batch import Batch
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
    nsp_loss: float | None
    """Nats a sample; None where the job learns no next-sentence prediction, as is the next."""
    nsp_accuracy: float | None
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

        A row is one sample of full length whose tokens are masked one by one, however the job packs, shortens and masks
        what it learns, so that such jobs compare. No row repeats text: a set of fewer rows than the job asks for is
        used whole, once.
        """
        data = PreTrainingData(
            corpus / VALIDATION,
            seq_len=phase.seq_len,
            seed=SEED,
            mask_probability=spec.data.mask_probability,
            next_sentence=spec.data.next_sentence,
        )
        return cls(data, min(spec.evaluation.sequences, len(data)), phase.micro_batch_size)

    def evaluate(
        self, module: PretrainingBert, device: torch.device, asks_to_stop: Callable[[], bool] = lambda: False
    ) -> Figures | None:
        """Judge the model. Every rank calls this and gets the same figures.

        Returns:
            None where `asks_to_stop` was true on any rank before the end.
        """
        begin = time.monotonic()
        sums_S = torch.zeros(len(_Sums._fields), dtype=torch.float64, device=device)
        model = whole(module)
        with torch.no_grad():
            for rows in self._turns():
                if ranks.any_of(asks_to_stop(), device):
                    return None
                if rows:
                    sums_S += _sums(model, self.data.batch(rows).to(device))
        return _figures(self.rows, _Sums(*ranks.all_reduce_sum(sums_S).tolist()), time.monotonic() - begin)

    def _turns(self) -> Iterator[range]:
        """Yield the rows of this rank's batches, as often on every rank; in the last turn a rank may have none."""
        for first in range(0, self.rows, ranks.world_size() * self.batch_size):
            mine = first + ranks.rank() * self.batch_size
            yield range(mine, min(mine + self.batch_size, self.rows))


class _Sums(NamedTuple):
    """Over rows, of which means are made: loss, right guesses and labels of each task."""

    mlm_loss: float
    mlm_right: float
    masked: float
    nsp_loss: float
    nsp_right: float
    samples: float


def _sums(model: PretrainingBert, batch: Batch) -> Tensor:
    scores_MV, next_sentence_B2 = model.scores(batch)
    return torch.stack(
        [*_sums_of(scores_MV, batch.masked_labels), *_sums_of(next_sentence_B2, batch.next_sentence_labels)]
    )


def _sums_of(scores_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    losses_N = F.cross_entropy(scores_NC, labels_N, reduction="none").double()
    right_N = (scores_NC.argmax(dim=-1) == labels_N).double()
    return losses_N.sum(), right_N.sum(), torch.ones_like(right_N).sum()


def _figures(rows: int, sums: _Sums, seconds: float) -> Figures:
    return Figures(
        rows=rows,
        masked=round(sums.masked),
        mlm_loss=sums.mlm_loss / sums.masked,
        mlm_accuracy=sums.mlm_right / sums.masked,
        nsp_loss=sums.nsp_loss / sums.samples if sums.samples else None,
        nsp_accuracy=sums.nsp_right / sums.samples if sums.samples else None,
        seconds=seconds,
    )
