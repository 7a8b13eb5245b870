"""The end of a run: its model in the form that `transformers` loads, beside the checkpoints."""

import time
from pathlib import Path

from workers import ranks
from workers.checkpoints.errors import ExportError
from workers.checkpoints.load import committed
from workers.checkpoints.to_transformers import export
from workers.contract.exports import read_export
from workers.contract.files import BusyError
from workers.contract.manifests import MANIFEST, UnknownFormatError
from workers.contract.records import AlertRecord, LogRecord
from workers.contract.run.folder import RunFolder
from workers.contract.sources import CorpusError
from workers.contract.spec.job import JobSpec

from .reporting.reporter import Reporter


def export_at_end(folder: RunFolder, spec: JobSpec, data: Path, reporter: Reporter | None) -> str | None:
    """Export the newest checkpoint, unless it was already. Every rank calls this; rank 0 does the work.

    The run has succeeded, whatever comes of this: where it fails, an alert says why and how to repeat it.

    Returns:
        The path of the export; None where it failed.
    """
    return ranks.as_rank_0_does(lambda: _export(folder, spec, data, reporter))


def _export(folder: RunFolder, spec: JobSpec, data: Path, reporter: Reporter | None) -> str | None:
    begin, newest = time.monotonic(), committed(folder)[-1]
    try:
        found = read_export(folder.export)
        if found is None or (found.step, found.attempt) != (newest.step, newest.attempt):
            found = export(folder, spec, folder.export, data).manifest
            folder.keep_export([*found.files, MANIFEST])
            size, took_s = found.size_bytes / 1e6, time.monotonic() - begin
            _log(reporter, f"model: exported to {folder.export} ({size:,.1f} MB in {took_s:.1f} s)")
    except (ExportError, CorpusError, UnknownFormatError, BusyError, OSError) as error:
        if reporter:
            detail = f"{error}. The checkpoints are whole: repeat it with `bigbatch export {folder.path}`"
            reporter.emit(AlertRecord(level="error", title="The model was not exported", detail=detail))
        return None
    return str(folder.export)


def _log(reporter: Reporter | None, text: str) -> None:
    if reporter:
        reporter.emit(LogRecord(text=text))
