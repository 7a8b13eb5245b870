"""What must hold before a rank may train, the same for every launcher: the number of workers, and the text."""

import platform
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch

from workers import ranks
from workers.contract.manifests import identity
from workers.contract.records import AlertRecord
from workers.contract.run.folder import RunFolder
from workers.contract.sources import CorpusError
from workers.contract.spec.job import JobSpec
from workers.corpus.prepare import prepare
from workers.corpus.tokenizer_files import publish_prepared
from workers.planning.size import check_size
from workers.samples.dataset import open_phase

from .reporting.preparation import describe, waiting_to
from .reporting.progress import progress_to
from .reporting.reporter import Reporter

PREPARATION_TIMEOUT = timedelta(days=2)
"""How long machines without a common data folder wait for the one that is the last to have prepared the text."""
Value = TypeVar("Value")
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Text:
    """The prepared corpus that every rank trains on."""

    folder: Path
    identity: str
    """sha256 of its manifest."""


def admit(spec: JobSpec, folder: RunFolder, data: Path, attempt: int, reporter: Reporter | None) -> Text:
    """Check the number of workers, prepare the text, and make sure that it is the run's. Every rank calls this.

    Prepared text is kept in the folder `data`.

    Raises:
        SpecError: the batches do not divide over so many workers, or the job does not allow so many.
        CorpusError: there is no text to train on, the ranks have different ones, or the run was begun on another one.
        SupersededError: a newer attempt has begun.
    """
    check_size(spec, ranks.world_size())
    waiting = waiting_to(reporter, ranks.gather(socket.gethostname()))
    known = folder.manifest().identity
    text = _everywhere("preparation of the text", lambda: _prepare(spec, data, reporter, known), waiting)
    _check_that_all_have(text)
    begun_on = ranks.as_rank_0_says(folder.begin_on(attempt, text.identity) if ranks.rank() == 0 else None)
    if begun_on not in {None, text.identity}:
        raise CorpusError(
            f"{', '.join(spec.data.corpus)}: not the text, vocabulary and settings that this run was begun on. Their "
            f"identity is {text.identity[:16]}, that of the run in {folder.path} {str(begun_on)[:16]}. Bring the old "
            "ones back, or begin another run in another folder"
        )
    ranks.as_rank_0_does(lambda: _keep_tokenizer(folder, text))
    if reporter and begun_on is None and folder.checkpoints():
        detail = "The version that took them did not write down their text. From now on the run keeps to this one."
        reporter.emit(AlertRecord(level="warning", title="The text of the steps so far is not known", detail=detail))
    _everywhere("index of the text's rows", lambda: _open(spec, text, reporter, is_new=begun_on is None), waiting)
    return text


def _keep_tokenizer(folder: RunFolder, text: Text) -> None:
    if folder.tokenizer() is None:
        folder.put_tokenizer(publish_prepared(text.folder))


def _prepare(spec: JobSpec, data: Path, reporter: Reporter | None, begun_on: str | None) -> Text:
    corpus = prepare(spec.data, data, progress_to(reporter), begun_on=begun_on)
    return Text(corpus, identity(corpus))


def _open(spec: JobSpec, text: Text, reporter: Reporter | None, *, is_new: bool) -> None:
    """Make the indexes that are missing here, and tell what the text is where nobody has yet."""
    if is_new:
        describe(spec, text.folder, reporter)
        return
    for phase in spec.phases:
        open_phase(text.folder, spec, phase, progress_to(reporter))


def _everywhere(what: str, work: Callable[[], Value], waiting: Callable[[list[int]], None]) -> Value:
    """Do on each machine what takes long where it was not done before, and wait until all have done it.

    Raises:
        CorpusError: one rank could not; all of them raise its error.
    """
    value: Value | None = None
    error: str | None = None
    try:
        value = work()
    except CorpusError as problem:
        error = str(problem)
    ranks.wait_for_all(what, PREPARATION_TIMEOUT, waiting)
    if errors := ranks.gather_errors(error):
        raise CorpusError(errors[0])
    return value  # type: ignore[return-value] # without an error there is a value


def _check_that_all_have(text: Text) -> None:
    everywhere = ranks.gather((socket.gethostname(), text))
    _, first = everywhere[0]
    if all(each.identity == first.identity for _, each in everywhere):
        return
    others = (
        f"rank {rank} on {host} has {each.identity[:16]} in {each.folder}"
        for rank, (host, each) in enumerate(everywhere)
        if rank == 0 or each.identity != first.identity
    )
    raise CorpusError(
        f"data.corpus: the workers have different texts: {', '.join(others)}. Give every machine the same files"
    )


def environment(device: torch.device) -> dict[str, Any]:
    """Return what this attempt runs on, as fields of its first status record. Every rank calls this."""
    everywhere = ranks.gather((socket.gethostname(), _name_of(device)))
    return {
        "versions": _versions(),
        "hosts": sorted({host for host, _ in everywhere}),
        "devices": dict(Counter(device for _, device in everywhere)),
    }


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = [line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return model[0] if model else platform.machine()


def _versions() -> dict[str, str]:
    found = {
        "bigbatch": metadata.version("bigbatch"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": next((line.partition("  ")[2].split("  ")[0].strip() for line in _lines(_DRIVER)), None),
        "nccl": _nccl() if torch.cuda.is_available() else None,
        "ray": metadata.version("ray") if "ray" in sys.modules else None,
    }
    return {name: value for name, value in found.items() if value}


def _nccl() -> str:
    numbers: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call] # not annotated in torch
    return ".".join(map(str, numbers))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
