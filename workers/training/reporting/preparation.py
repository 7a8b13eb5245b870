"""What a run says of its text once it is prepared: a summary, and what will surprise its author."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from workers.contract.manifests import VALIDATION, ShardsManifest, read_shards
from workers.contract.records import AlertRecord, LogRecord
from workers.contract.sources import Found, find
from workers.contract.spec.job import JobSpec
from workers.corpus.shards import Shards
from workers.evaluation.held_out import HeldOut
from workers.samples.dataset import open_phase
from workers.samples.survey import Survey, survey

from .progress import progress_to
from .reporter import Reporter

MOST_UNKNOWN = 0.05
"""Part of [UNK] among the tokens above which a warning is due."""
FEWEST_OF_A_KIND = 0.4
"""Part of the real, and of the random, second segments below which a warning is due."""
_SAY_WAITING_EVERY_S = 60.0
_NAMED = 20  # of the files that were left out


def waiting_to(reporter: Reporter | None, hosts: Sequence[str]) -> Callable[[list[int]], None]:
    """Return what writes a log record, at once and then every minute, that names the machines that still prepare.

    Args:
        reporter: writes the record; on rank 0 alone.
        hosts: the machine of each rank.
    """
    said_s = -math.inf

    def waiting(missing: list[int]) -> None:
        nonlocal said_s
        if reporter and time.monotonic() - said_s >= _SAY_WAITING_EVERY_S:
            said_s = time.monotonic()
            names = ", ".join(sorted({hosts[rank] for rank in missing}))
            reporter.emit(LogRecord(text=f"text: ready here; waiting until it is prepared on {names}"))

    return waiting


def describe(spec: JobSpec, corpus: Path, reporter: Reporter | None) -> None:
    """Report what the prepared text is and what it gives each phase. Every rank calls this, so that all may refuse it.

    The index of each phase's rows is made here if there is none.

    Raises:
        CorpusError: no pair of segments can be taken from the text.
    """
    shards, progress = Shards(corpus), progress_to(reporter)
    surveys = [survey(open_phase(corpus, spec, phase, progress)) for phase in spec.phases]
    held_out = [HeldOut.open(corpus, spec, phase) for phase in spec.phases if spec.data.validation is not None]
    if reporter is None:
        return
    found = find(spec.data.corpus)
    reporter.emit(LogRecord(text=summary(spec, found, shards.manifest, surveys)))
    if held_out:
        apart = read_shards(corpus / VALIDATION)
        reporter.emit(LogRecord(text=held_out_summary(spec, apart, held_out)))
        for alert in held_out_surprises(spec, apart):
            reporter.emit(alert)
    if found.left_out:
        more = len(found.left_out) - _NAMED
        names = ", ".join(found.left_out[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        reporter.emit(LogRecord(text=f"left out: {names}"))
    for alert in surprises(spec, shards.manifest, surveys):
        reporter.emit(alert)


def summary(spec: JobSpec, found: Found, shards: ShardsManifest, surveys: Sequence[Survey]) -> str:
    """Say in one line what the text is."""
    asked = f" of {spec.data.vocab:,} asked for" if isinstance(spec.data.vocab, int) else f" from {spec.data.vocab}"
    case = "lower case, accents and other combining marks removed" if shards.settings.lowercase else "cased"
    left_out = f" ({len(found.left_out):,} left out)" if found.left_out else ""
    text = (
        f"text: {_count(len(found.files), 'file')}{left_out}, {_count(shards.documents, 'document')}, "
        f"{_count(shards.sentences, 'sentence')}, {_count(shards.tokens, 'token')}; "
        f"vocabulary: {_count(shards.vocab_size, 'token')}{asked}, {case}; {shards.unknown / shards.tokens:.2%} [UNK]"
    )
    phases = (
        f"phases[{number}]: {_describe(phase.seq_len, each)}"
        for number, (phase, each) in enumerate(zip(spec.phases, surveys, strict=True))
    )
    return "; ".join([text, *phases])


def _describe(seq_len: int, found: Survey) -> str:
    parts = [f"{_count(found.rows, 'row')} of {seq_len} tokens", f"{found.padding:.1%} padding"]
    if found.samples_per_row > 1:
        parts.append(f"{found.samples_per_row:.2f} samples a row")
    if found.random is not None:
        parts.append(f"{found.random:.1%} random second segments")
    return ", ".join(parts)


def held_out_summary(spec: JobSpec, text: ShardsManifest, sets: Sequence[HeldOut]) -> str:
    """Say in one line what the text is by which the model is judged; `sets` are what it gives each phase."""
    asked = spec.evaluation.sequences
    phases = (
        f"phases[{number}]: {_count(each.rows, 'row')}"
        + (f" of {asked:,} asked for, which is all" if each.rows < asked else "")
        for number, each in enumerate(sets)
    )
    size = f"{_count(text.documents, 'document')}, {_count(text.tokens, 'token')}"
    return "; ".join([f"held-out text: {size}; {text.unknown / text.tokens:.2%} [UNK]", *phases])


def held_out_surprises(spec: JobSpec, text: ShardsManifest) -> list[AlertRecord]:
    """Find what makes the figures of held-out text say less than they seem to."""
    found: list[AlertRecord] = []
    if (unknown := text.unknown / text.tokens) > MOST_UNKNOWN:
        detail = "The vocabulary is made for other text. Give data.validation text of the kind that is learned"
        found.append(_warning(f"{unknown:.1%} of the tokens of the held-out text are [UNK]", detail))
    if text.documents == 1 and spec.data.next_sentence:
        detail = "Every second segment is the real one. Put a blank line between documents, or give more of them"
        found.append(_warning("The held-out text is a single document, so its NSP accuracy says nothing", detail))
    return found


def surprises(spec: JobSpec, shards: ShardsManifest, surveys: Sequence[Survey]) -> list[AlertRecord]:
    """Find what the author of the job would want to know before the first step."""
    found: list[AlertRecord] = []
    if (unknown := shards.unknown / shards.tokens) > MOST_UNKNOWN:
        remedy = "Give data.vocab a vocabulary made for this text, or a larger size; data.lowercase must suit it"
        found.append(_warning(f"{unknown:.1%} of the tokens are [UNK]", remedy))
    if isinstance(spec.data.vocab, int) and shards.vocab_size < spec.data.vocab:
        title = f"The vocabulary has {shards.vocab_size:,} tokens, {spec.data.vocab:,} were asked for"
        found.append(_warning(title, "The text holds no more pieces that occur twice. Give more text, or ask for less"))
    for number, (phase, each) in enumerate(zip(spec.phases, surveys, strict=True)):
        if each.rows < phase.global_batch_size:
            title = (
                f"phases[{number}]: the text gives {_count(each.rows, 'row')} of {phase.seq_len} tokens, fewer "
                f"than a global batch of {phase.global_batch_size:,}"
            )
            found.append(_warning(title, "Every step repeats text. Give more text, or make the batch smaller"))
    return found + _imbalance(shards, [each.random for each in surveys if each.random is not None])


def _imbalance(shards: ShardsManifest, random: Sequence[float]) -> list[AlertRecord]:
    if not random:  # no second segments
        return []
    if shards.documents == 1:
        detail = "The second segment is always the real one. Put a blank line between documents"
        return [_warning("The text is a single document, so next-sentence prediction learns nothing", detail)]
    most = max(random)
    if most <= 1 - FEWEST_OF_A_KIND:
        return []
    detail = (
        "Documents of one sentence have no real continuation. Give one paragraph a line, and blank lines only between "
        "documents"
    )
    return [_warning(f"{most:.1%} of the second segments are random; next-sentence prediction wants half", detail)]


def _warning(title: str, detail: str) -> AlertRecord:
    return AlertRecord(level="warning", title=title, detail=detail)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
