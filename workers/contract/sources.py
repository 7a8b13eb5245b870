"""Where the text of a job comes from, known from names and sizes before anything is read.

The server checks a job by the same rules by which the workers read it. Neither torch nor numpy is loaded here.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from .problems import Problem, SpecError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_VOCABULARY = 65_536  # token shards are uint16
SUFFIXES = (".txt", ".txt.gz")
_PACKAGED = Path(__file__).parents[1] / "corpus"
BUILTIN = {name: _PACKAGED / f"{name.replace('-', '_')}.txt.gz" for name in ("austen", "austen-valid")}


class CorpusError(ValueError):
    """A corpus, vocabulary or prepared folder cannot be used; the message names it and the remedy."""


class SourceError(CorpusError):
    """A source of text cannot be used."""

    def __init__(self, source: str, problem: str, remedy: str) -> None:
        self.source, self.problem, self.remedy = source, problem, remedy
        super().__init__(f"{source}: {problem}; {remedy}")


class DataLike(Protocol):
    """The part of a job's `data` that names files."""

    @property
    def corpus(self) -> Sequence[str]:
        """Text files, folders of these, or `builtin:NAME`."""

    @property
    def vocab(self) -> int | str:
        """Size of a vocabulary to train, or the path of a vocab.txt."""

    @property
    def validation(self) -> Sequence[str] | float | None:
        """Text kept from training: files as in `corpus`, or a share of the corpus's documents."""


class PhaseLike(Protocol):
    """The part of a phase that says how much text a step takes."""

    @property
    def seq_len(self) -> int:
        """Tokens a sample."""

    @property
    def global_batch_size(self) -> int:
        """Samples a step."""


class Found(NamedTuple):
    """The text files that the sources name, each once, and what lies beside them in their folders."""

    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    """Paths with the reason: hidden, or not a text file."""


def find(sources: Sequence[str]) -> Found:
    """Find every text file that the sources name, those of a folder in the order of their names.

    Linked folders are followed. A file that is reached twice, by whatever way, counts once.

    Raises:
        SourceError: a source is not there, cannot be read, or holds no text file.
    """
    if not sources:
        raise SourceError("data.corpus", "is empty", "name a text file, a folder or builtin:austen")
    files: dict[tuple[int, int], Path] = {}
    left_out: list[str] = []
    for source in sources:
        try:
            for file in _files(source, left_out):
                files.setdefault(_inode(file), file)
        except OSError as error:
            raise SourceError(
                source, f"cannot be read: {error}", "check the file, its permissions and data.corpus"
            ) from error
    return Found(tuple(files.values()), tuple(left_out))


def resolve(source: str) -> Path:
    """Turn `builtin:NAME`, a file or a folder into a path that exists.

    Raises:
        SourceError: there is no such built-in corpus, file or folder.
    """
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        if name not in BUILTIN:
            raise SourceError(source, "no such text", f"write {', '.join(f'builtin:{known}' for known in BUILTIN)}")
        return BUILTIN[name]
    path = Path(source).expanduser()
    if not path.exists():
        where = "no such file on this machine" if path.is_absolute() else f"no such file or folder below {Path.cwd()}"
        raise SourceError(source, where, "check the path, or copy the file there")
    return path


def is_compressed(path: Path) -> bool:
    """Tell whether a text file is read through gzip."""
    return path.name.lower().endswith(".gz")


def check_files(data: DataLike) -> None:
    """Check that the files which a job names are on this machine and not empty.

    Raises:
        SpecError: with one problem for each file.
    """
    problems = [_problem(f"data.corpus[{i}]", source) for i, source in enumerate(data.corpus)]
    if isinstance(data.validation, Sequence):
        problems += [_problem(f"data.validation[{i}]", source) for i, source in enumerate(data.validation)]
    if isinstance(data.vocab, str):
        problems.append(_problem("data.vocab", data.vocab))
    if found := [problem for problem in problems if problem is not None]:
        raise SpecError(found)


def warnings(data: DataLike, phases: Sequence[PhaseLike]) -> list[Problem]:
    """Tell what will surprise the author of a job whose files were checked; from names and sizes alone.

    A token is at least a byte, so a corpus of fewer bytes than a global batch has tokens repeats within each step.
    """
    size_bytes = sum(file.stat().st_size for file in find(data.corpus).files)
    return [
        Problem(
            f"phases[{number}].global_batch_size",
            str(phase.global_batch_size),
            f"one step takes up to {tokens:,} tokens, the corpus has {size_bytes:,} bytes, so every step repeats text",
            "give more text or make the batch smaller",
        )
        for number, phase in enumerate(phases)
        if size_bytes < (tokens := phase.global_batch_size * phase.seq_len)
    ]


def _files(source: str, left_out: list[str]) -> list[Path]:
    path = resolve(source)
    files = list(_walk(path, left_out, set())) if path.is_dir() else [path]
    if not files or not all(_is_text(file) for file in files):
        raise SourceError(source, "holds no text", f"give a {' or '.join(SUFFIXES)} file or a folder of these")
    return files


def _walk(folder: Path, left_out: list[str], visited: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the text files below a folder in the order of their names; a folder that links lead back to, once."""
    if _inode(folder) in visited:
        return
    visited.add(_inode(folder))
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            left_out.append(f"{path} (hidden)")
        elif path.is_dir():
            yield from _walk(path, left_out, visited)
        elif _is_text(path):
            yield path
        else:
            left_out.append(f"{path} (not {' or '.join(SUFFIXES)})")


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _problem(field: str, source: str) -> Problem | None:
    try:
        _check(field, source)
    except SourceError as error:
        return Problem(field, repr(source), error.problem, error.remedy)
    except (OSError, EOFError, RuntimeError, zlib.error) as error:  # RuntimeError: an unknown user's home
        return Problem(field, repr(source), f"cannot be read: {error}", "check the file and its permissions")
    return None


def _check(field: str, source: str) -> None:
    if not source.startswith("builtin:") and not Path(source).expanduser().is_absolute():
        raise SourceError(source, "a relative path means nothing to the server", "write an absolute path")
    files = [resolve(source)] if field == "data.vocab" else _files(source, [])
    if not any(_has_text(file) for file in files):
        raise SourceError(source, "holds no text", f"name a {' or '.join(SUFFIXES)} file with text, or a folder")


def _has_text(path: Path) -> bool:
    with gzip.open(path) if is_compressed(path) else path.open("rb") as file:
        return any(line.strip() for line in file)
