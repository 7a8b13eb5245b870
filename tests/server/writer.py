"""Records of a run, numbered as the run itself numbers them."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.serving import packed
from workers.contract.records import tensor_set

NAMES = [
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.0.attention.self.query.bias",
    "bert.encoder.layer.1.output.dense.weight",
]
ADAPTED = [True, False, True, False, True]

Record = dict[str, Any]


def ratio(step: int, row: int) -> float:
    """The ratio that a writer gives a tensor: its own at the first step, growing with the steps."""
    return 0.02 * (1 + row) * (1 + step / 10) if ADAPTED[row] else 1.0


class Writer:
    """Writes the records of one run."""

    def __init__(self) -> None:
        self._seq = 0
        self._set = ""

    def begin(self) -> list[Record]:
        """What a run says before its first step."""
        status = self._record("status", status="RUNNING", attempt=1, world_size=2, unigram_entropy_nats=6.06)
        return [status, self.tensors()]

    def tensors(self, names: Sequence[str] = NAMES, adapted: Sequence[bool] = ADAPTED) -> Record:
        """The names of the steps that follow."""
        self._set = tensor_set(names, adapted)
        return self._record("tensors", names=list(names), adapted=list(adapted), set=self._set)

    def end(self, status: str, error: str | None = None, export_path: str | None = None) -> Record:
        """The last word of a run."""
        return self._record("status", status=status, attempt=1, error=error, export_path=export_path)

    def step(self, step: int, ratios: Sequence[float] | None = None, *, skipped: bool = False) -> Record:
        """A step on a smooth loss curve."""
        loss = None if skipped else 6 + 3 * math.exp(-step / 20)
        numbers = ratios or [ratio(step, row) for row in range(len(NAMES))]
        return self._record(
            "step",
            step=step,
            phase=0,
            loss=loss,
            mlm_loss=loss,
            nsp_loss=0.69,
            mlm_accuracy=0.1,
            lr=step / 10_000,
            grad_norm=None if skipped else 1.5,
            clip_coef=None if skipped else 0.66,
            skipped=skipped,
            tokens_per_s=12_345.0,
            step_s=0.5,
            set=self._set,
            trust_ratio=None if skipped else packed(numbers),
        )

    def steps(self, first: int, last: int) -> list[Record]:
        """The steps from `first` to `last`."""
        return [self.step(step) for step in range(first, last + 1)]

    def evaluation(self, step: int, **figures: float | None) -> Record:
        """The model judged by held-out text: 12.5 % of the masked words are right."""
        means = {"mlm_loss": 6.5, "mlm_accuracy": 0.125, "perplexity": 665.0, "nsp_loss": 0.7, "nsp_accuracy": 0.5}
        numbers = {"attempt": 1, "phase": 0, "seq_len": 64, "rows": 80, "masked": 720, "seconds": 1.5}
        return self._record("evaluation", step=step, **numbers | means | figures)

    def checkpoint(self, step: int, *, kept: Sequence[int] | None = None) -> Record:
        """A checkpoint of 50 MiB; `kept` are the steps of those that are there from now on."""
        paths = {} if kept is None else {"kept": [f"checkpoints/{each}" for each in kept]}
        path = f"checkpoints/{step}"
        return self._record("checkpoint", step=step, path=path, size_bytes=50 * 2**20, seconds=0.8, held_s=0.1, **paths)

    def alert(self, title: str) -> Record:
        """A warning."""
        return self._record("alert", level="warning", title=title, detail="Look at the learning rate.")

    def _record(self, kind: str, **fields: Any) -> Record:
        self._seq += 1
        return {"kind": kind, "seq": self._seq, "time": datetime.now(UTC).isoformat()} | fields
