"""Which files of this machine a job may name, and what the server sees of them without reading text.

What a client may not read, a job must not read for it. Only names and sizes are looked at, and only for so long: files
that the server does not see in time are checked where the text is prepared.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLongError
from pathlib import Path
from typing import TypeVar

from workers.contract.pretrained import check_folder
from workers.contract.problems import Problem, SpecError
from workers.contract.sources import check_files, named_files, start_of, warnings
from workers.contract.spec.data import Data
from workers.contract.spec.job import JobSpec
from workers.contract.text_files import is_local_system, is_url

from .settings import Settings

log = logging.getLogger(__name__)
Seen = TypeVar("Seen")
_AT_ONCE = 8
_SYSTEM = tuple(Path(name) for name in ("/boot", "/dev", "/etc", "/proc", "/run", "/sys"))
_RUN, _EXPORT = 2, "export"


class Reach:
    """What jobs may read of this machine: the files below the roots, or all but those of the system and the server.

    Args:
        settings: of the server; they name the roots.
        limit_s: how long, in seconds, the files of a job are looked at.
    """

    def __init__(self, settings: Settings, limit_s: float = 10.0) -> None:
        self._limit_s = limit_s
        # Links that lead out of a root are found only where they are: with roots, all files must be here, too.
        self._leaves_to_others = settings.has_other_nodes and not settings.data_roots
        self._roots, self._home = settings.data_roots, settings.home.resolve()
        self._runs = settings.run_folder("").resolve()
        self._free = threading.BoundedSemaphore(_AT_ONCE)

    def check(self, spec: JobSpec) -> list[Problem]:
        """Check the files that a job names; return what may surprise its author all the same.

        Raises:
            SpecError: a file is not there, cannot be used, or is none that a job may name.
        """
        what = f"the files of job {spec.name}"
        problem = f"could not be looked at within {self._limit_s:g} s"
        amiss = self.within(lambda: list(self._named_amiss(spec)), what)
        if amiss is None:
            amiss = [Problem("data", "(files)", problem, "check the disks that they are on, and submit the job again")]
        if amiss:
            raise SpecError(amiss)
        seen = self.within(lambda: self._look(spec), what)
        if seen is None:
            return [Problem("data", "(files)", problem, "nothing has to be done: the job checks them when it starts")]
        return seen

    def within(self, look: Callable[[], Seen], what: str) -> Seen | None:
        """Return what `look` returns, or None where it takes longer than the limit.

        A disk of the network that does not answer cannot be interrupted. So its thread is one that nothing waits for,
        and there are only a few of them.
        """
        found = Future[Seen]()

        def run() -> None:
            try:
                found.set_result(look())
            except BaseException as error:  # noqa: BLE001 -- raised again by who waits for the result
                found.set_exception(error)
            finally:
                self._free.release()

        if self._free.acquire(timeout=self._limit_s):
            threading.Thread(target=run, name=f"look at {what}", daemon=True).start()
            try:
                return found.result(self._limit_s)
            except TookTooLongError:
                pass
        log.warning("%s could not be looked at within %g s", what, self._limit_s)
        return None

    def _named_amiss(self, spec: JobSpec) -> Iterator[Problem]:
        """Find, before anything is looked at, the names that no job may have."""
        places = dict(named_files(spec.data))
        if spec.model.init_from is not None:
            places["model.init_from"] = spec.model.init_from
        if spec.start_from is not None and "/" in spec.start_from.run:
            places["start_from.run"] = spec.start_from.run
        for field, source in places.items():
            if source.startswith("builtin:"):
                continue
            if is_url(source):
                if is_local_system(source):
                    problem = "is a URL that may read files of this machine"
                    yield Problem(field, repr(source), problem, "write an absolute path, or a plain URL")
                continue
            try:
                yield from self._amiss(field, source, start_of(source))
            except (OSError, RuntimeError) as error:  # RuntimeError: an unknown user's home, or links in a circle
                yield Problem(field, repr(source), f"cannot be read: {error}", "check the path")

    def _look(self, spec: JobSpec) -> list[Problem]:
        if spec.start_from is None:  # a branch has weights already
            check_folder(spec.model)
        absent = self._absent(spec.data)
        found = [(field, Path(file.name)) for field, files in check_files(spec.data, absent).items() for file in files]
        if spec.model.init_from is not None:
            folder = Path(spec.model.init_from).expanduser()
            found += [("model.init_from", path) for path in sorted(folder.iterdir()) if path.is_file()]
        builtin = {field for field, source in named_files(spec.data).items() if source.startswith("builtin:")}
        for field, path in found:
            if field not in builtin and (problems := list(self._amiss(field, str(path), path))):
                raise SpecError(problems)
        remedy = "nothing has to be done: it is checked on the cluster, where the text is prepared"
        elsewhere = [
            Problem(field, repr(source), "is not on the server's machine", remedy) for field, source in absent.items()
        ]
        return elsewhere or warnings(spec.data, spec.phases)

    def _absent(self, data: Data) -> dict[str, str]:
        """Return what is not on this machine, by its field, if only the cluster's other machines may have it."""
        if not self._leaves_to_others:
            return {}
        return {field: source for field, source in named_files(data).items() if _is_absent(source)}

    def _amiss(self, field: str, source: str, path: Path) -> Iterator[Problem]:
        """Yield what is wrong with a path, links in it followed, if anything is."""
        if not path.is_absolute():
            return  # the check of the files tells
        real = path.resolve()
        if real.is_relative_to(self._home):
            parts = real.relative_to(self._runs).parts if real.is_relative_to(self._runs) else ()
            may_be_read = field == "start_from.run" if len(parts) < _RUN else parts[1] == _EXPORT
            if not parts or not may_be_read:
                problem = "lies in the folder of the server itself"
                yield Problem(
                    field, repr(source), problem, "copy it elsewhere; of a run, its folder export can be used"
                )
        elif self._roots and not _is_below(real, self._roots):
            problem = "lies outside the folders that jobs may read here"
            below = " or ".join(map(str, self._roots))
            yield Problem(field, repr(source), problem, f"copy it below {below}, or start the server with --data-root")
        elif not self._roots and (_is_below(real, _SYSTEM) or any(_is_below(each, [real]) for each in _SYSTEM)):
            problem = "is, or holds, a folder of the operating system"
            yield Problem(field, repr(source), problem, "name a file or folder of text elsewhere")


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _is_absent(source: str) -> bool:
    if source.startswith("builtin:") or is_url(source):
        return False
    try:
        return (start := start_of(source)).is_absolute() and not start.exists()
    except OSError:  # it is there, and the check of the files tells what is wrong with it
        return False
