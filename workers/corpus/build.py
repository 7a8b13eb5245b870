"""Text → token shards, unit by unit.

1. Where paragraphs are left out or documents held out, the outlines of all units are taken, and the marks decided.
2. The vocabulary is learnt, where none is given.
3. Each unit is tokenized, and the tokens of all units are put together in the order of the text.

The first and the last step are spread over processes. What is done is kept, so a preparation that was interrupted goes
on where it stopped; how the text is cut and how many processes there are changes no byte of what is made.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from workers.contract.files import write_private
from workers.contract.manifests import VALIDATION, HashedText, ShardsSettings
from workers.contract.text_files import TextFile

from . import vocabulary
from .hashes import Hashed, content
from .reading.text import Reading
from .reading.units import Unit, cut
from .shards import ShardWriter
from .work.assembly import documents
from .work.finished import Finished
from .work.outcome import Outline, Tokens
from .work.pool import Spread, Work
from .work.repeats import mark
from .work.tasks import Marks, Outlining, Task, Tokenizing, kept_paragraphs

Progress = Callable[[str, float], None]
"""Told what is being done ("learning the vocabulary", "tokenizing") and which part of it is done, 0 to 1."""


class Text(NamedTuple):
    """Text files, and what was found when they were hashed."""

    files: Sequence[TextFile]
    hashed: Sequence[Hashed]

    @property
    def contents(self) -> list[HashedText]:
        """What of the files decides over their documents."""
        return [content(file, hashed) for file, hashed in zip(self.files, self.hashed, strict=True)]


class Writers(NamedTuple):
    """Where documents go."""

    learned: ShardWriter
    held_out: ShardWriter


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes the shards of one prepared corpus.

    Args:
        work: the folder of what is done so far.
        settings: what the tokens depend on.
        given: the vocabulary; None if it is to be learnt.
        spread: how units are worked on.
        unit_bytes: size of a unit; None for what suits the size of the text.
        report: told of the progress.
    """

    work: Path
    settings: ShardsSettings
    given: list[str] | None
    spread: Spread
    unit_bytes: int | None
    report: Progress

    def build(self, corpus: Text, apart: Text) -> Writers:
        """Write the shards of the corpus and of the text that is kept from training, but no manifest yet.

        Raises:
            CorpusError: the text cannot be read, or not be spelt by the vocabulary.
        """
        learned, held_out = self._marked(corpus, self.settings.validation), self._marked(apart, None)
        tokens = self.given or self._vocabulary(learned)
        task = Tokenizing(tokens, lowercase=self.settings.lowercase, reading=self._reading)
        folder = self.work / "shards"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        writers = Writers(ShardWriter(folder, tokens), ShardWriter(folder / VALIDATION, tokens))
        for document in documents(map(Tokens.unpack, self._do(task, learned, "tokenizing"))):
            (writers.held_out if document.is_held_out else writers.learned).append(document.tokens, document.lengths)
        for document in documents(map(Tokens.unpack, self._do(task, held_out, "tokenizing the validation text"))):
            writers.held_out.append(document.tokens, document.lengths)
        return writers

    @property
    def _reading(self) -> Reading:
        return Reading(self.settings.encoding_errors or "refuse", self.settings.text_column or "text")

    def _marked(self, text: Text, share: float | None) -> list[Work]:
        """Cut the text into units, and decide which paragraphs are left out and which are held out."""
        units = cut(text.files, [hashed.text_bytes for hashed in text.hashed], self.unit_bytes)
        work: list[Work] = [(unit, None) for unit in units]
        deduplicate = bool(self.settings.deduplicate)
        if not units or not (deduplicate or share):
            return work
        stage = "looking for repeated paragraphs" if deduplicate else "choosing documents for validation"
        outlines = [Outline.unpack(outcome) for outcome in self._do(Outlining(self._reading), work, stage)]
        return list(zip(units, mark(outlines, deduplicate=deduplicate, share=share), strict=True))

    def _vocabulary(self, work: Sequence[Work]) -> list[str]:
        """Learn the vocabulary, unless that was done before an interruption."""
        path = self.work / "vocabulary"
        if not path.exists():
            passes = itertools.count()

            def paragraphs() -> Iterator[str]:
                number = next(passes)
                for done, (unit, marks) in enumerate(work, start=1):
                    yield from kept_paragraphs(unit, marks, self._reading)
                    self.report("learning the vocabulary", (number + done / len(work)) / vocabulary.PASSES)

            tokens = vocabulary.train(paragraphs, int(self.settings.vocab), lowercase=self.settings.lowercase)
            write_private(path, "\n".join(tokens))
        return path.read_text(encoding="utf-8").split("\n")

    def _do(self, task: Task, work: Sequence[Work], stage: str) -> Iterator[bytes]:
        """Have the outcome of every unit on disk; yield each when it and all before it are there."""
        finished = Finished(self.work / "units")
        missing = [number for number, each in enumerate(work) if finished.get(task, *each) is None]
        total = max(sum(unit.size_bytes for unit, _ in work), 1)
        done = total - sum(work[number][0].size_bytes for number in missing)
        unfinished, following = set(missing), 0
        for place, outcome in self.spread(task, [work[number] for number in missing]) if missing else ():
            unit, marks = work[missing[place]]
            finished.put(task, unit, marks, outcome)
            unfinished.remove(missing[place])
            done += unit.size_bytes
            self.report(stage, done / total)
            while following not in unfinished and following < len(work):
                yield self._kept(finished, task, *work[following])
                following += 1
        for each in work[following:]:
            yield self._kept(finished, task, *each)

    def _kept(self, finished: Finished, task: Task, unit: Unit, marks: Marks | None) -> bytes:
        if (outcome := finished.get(task, unit, marks)) is None:
            raise OSError(f"{unit.file}: what was made of it is gone from {self.work} or damaged; start again")
        return outcome
