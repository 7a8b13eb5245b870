"""How far the preparation of a text has come, as records of its job. Needs no torch."""

import time
from collections.abc import Callable, Mapping

from workers.contract.records import LogRecord
from workers.contract.spec.data import Data
from workers.corpus.prepare import Progress

from .reporter import Reporter

_SAY_EVERY_S = 10.0
_SHARES = {
    "hashing the text": 0.05,
    "looking for repeated paragraphs": 0.1,
    "choosing documents for validation": 0.1,
    "learning the vocabulary": 0.6,
    "tokenizing": 0.3,
}
"""About which share of the time each stage takes, in their order. What follows on them takes little."""


def progress_to(
    reporter: Reporter | None, whole: Callable[[str, float], float | None] = lambda _what, _done: None
) -> Progress | None:
    """Return what writes a log record at each stage of a preparation, and every ten seconds in between.

    Args:
        reporter: writes the records; on rank 0 alone.
        whole: makes of a stage, and of its part that is done, the part of the whole preparation that is done.
    """
    if reporter is None:
        return None
    said_what, said_s = "", 0.0

    def progress(what: str, done: float) -> None:
        nonlocal said_what, said_s
        is_new = what != said_what
        if is_new or time.monotonic() - said_s >= _SAY_EVERY_S:
            said_what, said_s = what, time.monotonic()
            text = f"text: {what}" if is_new else f"text: {what}, {done:.0%} done"
            reporter.emit(LogRecord(text=text, done=whole(what, done)))

    return progress


def whole_of(data: Data) -> Callable[[str, float], float]:
    """Return what says which part of the preparation of a text is done; it never goes back."""
    shares = _shares_of(data)
    reached = 0.0

    def whole(what: str, done: float) -> float:
        nonlocal reached
        if what in shares:
            before, share = shares[what]
            reached = min(1.0, max(reached, before + share * done))
        return reached

    return whole


def _shares_of(data: Data) -> Mapping[str, tuple[float, float]]:
    """Return which share is done before each stage, and its own."""
    absent = {"looking for repeated paragraphs"} if not data.deduplicate else {"choosing documents for validation"}
    if not isinstance(data.validation, float):
        absent.add("choosing documents for validation")
    if not isinstance(data.vocab, int):
        absent.add("learning the vocabulary")
    stages = {what: share for what, share in _SHARES.items() if what not in absent}
    shares, before, total = dict[str, tuple[float, float]](), 0.0, sum(stages.values())
    for what, share in stages.items():
        shares[what] = (before / total, share / total)
        before += share
    return shares
