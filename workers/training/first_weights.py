"""The weights of a run's first step: drawn, or those of the folder that `model.init_from` names."""

from pathlib import Path

from workers import ranks
from workers.checkpoints.load import committed
from workers.contract.manifests import read_shards
from workers.contract.pretrained import check_folder
from workers.contract.problems import SpecError
from workers.contract.records import AlertRecord, LogRecord
from workers.contract.run.folder import RunFolder
from workers.contract.sources import vocabulary_file
from workers.contract.spec.job import JobSpec
from workers.corpus import shards, vocabulary
from workers.model.bert import PretrainingBert
from workers.model.pretrained import Taken, take_weights

from .reporting.reporter import Reporter


def take_first_weights(
    spec: JobSpec, folder: RunFolder, corpus: Path, module: PretrainingBert, reporter: Reporter | None
) -> None:
    """Take the weights of `model.init_from`, where the run has no checkpoint of its own yet. Every rank calls this.

    Raises:
        SpecError: the folder cannot be used; on every rank, so that none waits for the others.
    """
    if spec.model.init_from is None or ranks.as_rank_0_does(lambda: bool(committed(folder))):
        return
    taken, error = Taken([], []), None
    try:
        check_folder(spec.model)
        tokens, settings = vocabulary.load(corpus / shards.VOCABULARY), read_shards(corpus).settings
        taken = take_weights(module, spec.model, tokens, lowercase=settings.lowercase)
    except SpecError as problem:
        error = problem
    if errors := [each for each in ranks.gather(error) if each is not None]:
        raise errors[0]
    if reporter:
        _report(spec.model.init_from, taken, reporter)


def _report(start: str, taken: Taken, reporter: Reporter) -> None:
    reporter.emit(LogRecord(text=f"model: starts with the weights of {start}; the moments are new"))
    if taken.left_out:
        reporter.emit(LogRecord(text=f"model: no place for {', '.join(taken.left_out)} of {start}: left out"))
    if taken.lacking:
        detail = f"{start} lacks {', '.join(taken.lacking)}: these begin anew, and their losses are high at first"
        reporter.emit(AlertRecord(level="warning", title="The heads of the model start anew", detail=detail))
    if vocabulary_file(Path(start).expanduser()) is None:
        detail = f"{start} has no vocabulary. That its rows are the tokens of data.vocab could not be checked"
        reporter.emit(
            AlertRecord(level="warning", title="The vocabulary of the first weights is not known", detail=detail)
        )
