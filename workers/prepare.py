"""`python -m workers.prepare RUN --data DIR`: the first stage of a job on a Ray cluster, in which its text is prepared.

It holds no processor of the cluster: on the node of the driver it works in processes that all others go before, and
over several nodes (`--cluster`) on the processors that nobody holds. What it reports goes into the run's journal as
attempt 0, which every attempt follows: a FAILED record says that the text cannot be used. Exit code 0 says that it is
ready. Where it ends in neither way, something was lost, and the next preparation goes on where this one stopped.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .contract.manifests import UnknownFormatError
from .contract.problems import SpecError
from .contract.records import RunStatus, StatusRecord
from .contract.run.folder import RunFolder, RunFolderError, older_half
from .contract.run.lock import SupersededError
from .contract.run.remote import StorageError
from .contract.sources import CorpusError
from .corpus.hashes import locked
from .corpus.prepare import prepare
from .corpus.rows.index import Layout, open_index
from .corpus.shards import Shards
from .corpus.work.pool import Spread, if_large, on_all_processors
from .corpus.work.process import WorkerError
from .output import keep
from .training.reporting.progress import progress_to, whole_of
from .training.reporting.reporter import Reporter

ATTEMPT = 0
"""What a preparation is to all that counts attempts."""
_NICE = 10
"""By so much do those who train on the same processors go before."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the scheduler has decided."""

    run: Path
    data: Path
    """The folder that prepared text is kept in."""
    cluster: bool
    """Whether the work is spread over the nodes of the cluster."""


def main(command_line: Sequence[str] | None = None) -> int:
    """Prepare the text of the job of a run folder; return the exit code."""
    order = _read_order(command_line)
    os.nice(_NICE)
    folder = RunFolder(order.run)
    log = folder.log(ATTEMPT)
    keep(log, older_half(log))
    # Of two preparations of one job, the first is being ended and the second waits until it has.
    with locked(folder.path / "preparation.lock"):
        try:
            return _prepare(folder, order)
        except (CorpusError, SupersededError, RunFolderError, StorageError, UnknownFormatError) as error:
            sys.stderr.write(f"{error}\n")
            return 1


def _read_order(command_line: Sequence[str] | None) -> Order:
    parser = argparse.ArgumentParser(prog="python -m workers.prepare", description="Prepare the text of a job.")
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data", type=Path, required=True, help="the folder that prepared text is kept in")
    parser.add_argument("--cluster", action="store_true", help="spread the work over the nodes of the cluster")
    return Order(**vars(parser.parse_args(command_line)))


def _prepare(folder: RunFolder, order: Order) -> int:
    spread = _over_the_cluster() if order.cluster else on_all_processors
    reporter = Reporter(folder, ATTEMPT)
    try:
        _make_ready(folder, order.data, if_large(spread), reporter)
    except WorkerError:
        raise
    except (SpecError, CorpusError) as error:
        sys.stderr.write(f"{error}\n")
        reporter.emit(StatusRecord(status=RunStatus.FAILED, attempt=ATTEMPT, error=str(error)))
        return 1
    finally:
        reporter.close()
    return 0


def _make_ready(folder: RunFolder, data: Path, spread: Spread, reporter: Reporter) -> None:
    """Prepare the text and find the rows of each phase, unless that was done before."""
    spec, begun_on = folder.spec(), folder.manifest().identity
    progress = progress_to(reporter, whole_of(spec.data))
    corpus = prepare(spec.data, data, progress, spread=spread, begun_on=begun_on)
    for phase in spec.phases:
        layout = Layout(phase.seq_len, spec.data.next_sentence, spec.data.packing)
        open_index(Shards(corpus), layout, progress)


def _over_the_cluster() -> Spread:
    from .corpus.work.cluster import connect, has_room, on_cluster

    connect("auto")
    if has_room():
        return on_cluster
    sys.stderr.write("others hold all processors of the cluster: the text is prepared in processes on this node\n")
    return on_all_processors


if __name__ == "__main__":
    sys.exit(main())
