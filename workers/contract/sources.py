"""Where the text of a job comes from, known from names and sizes before anything is read.

The server checks a job by the same rules by which the workers read it. Neither torch nor numpy is loaded here.
"""

import glob
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from .problems import Problem, SpecError
from .text_files import ALLOWED, TextFile, find_remote, is_text, is_url, without_protocol

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_VOCABULARY = 65_536  # token shards are uint16
_PACKAGED = Path(__file__).parents[1] / "corpus"
BUILTIN = {name: _PACKAGED / f"{name.replace('-', '_')}.txt.gz" for name in ("austen", "austen-valid")}


VOCABULARIES = ("vocab.txt", "tokenizer.json")
"""Where a folder may have its vocabulary; the first that is there counts."""


class CorpusError(ValueError):
    """A corpus, vocabulary or prepared folder cannot be used; the message names it and the remedy."""


class SourceError(CorpusError):
    """A source of text cannot be used."""

    def __init__(self, source: str, problem: str, remedy: str) -> None:
        self.source, self.problem, self.remedy = source, problem, remedy
        super().__init__(f"{source}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[type["SourceError"], tuple[str, str, str]]:
        """Travel between processes as its parts, of which the message is made again."""
        return SourceError, (self.source, self.problem, self.remedy)


class DataLike(Protocol):
    """The part of a job's `data` that names files."""

    @property
    def corpus(self) -> Sequence[str]:
        """Text files, folders or globs of these, URLs of file systems, or `builtin:NAME`."""

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

    files: tuple[TextFile, ...]
    left_out: tuple[str, ...]
    """Names with the reason: hidden, or not a text file."""


def find(sources: Sequence[str]) -> Found:
    """Find every text file that the sources name, those of a folder or a glob in the order of their names.

    Linked folders are followed. A file that is reached twice, by whatever way, counts once.

    Raises:
        SourceError: a source is not there, cannot be read, or holds no text file.
    """
    if not sources:
        raise SourceError("data.corpus", "is empty", "name a text file, a folder or builtin:austen")
    files: dict[object, TextFile] = {}
    left_out: list[str] = []
    for source in sources:
        try:
            for file in _files(source, left_out):
                files.setdefault(_what_it_is(file), file)
        except OSError as error:
            raise SourceError(
                source, f"cannot be read: {error}", "check the file, its permissions and data.corpus"
            ) from error
    return Found(tuple(files.values()), tuple(dict.fromkeys(left_out)))


def resolve(source: str) -> list[Path]:
    """Turn `builtin:NAME`, a file, a folder or a glob into the paths that exist.

    Raises:
        SourceError: there is no such built-in corpus, file or folder.
    """
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        if name not in BUILTIN:
            raise SourceError(source, "no such text", f"write {', '.join(f'builtin:{known}' for known in BUILTIN)}")
        return [BUILTIN[name]]
    path = Path(without_protocol(source)).expanduser()
    if path.exists():
        return [path]
    if found := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 -- a pathlib pattern cannot be absolute
        return [Path(each) for each in found]
    where = "no such file on this machine" if path.is_absolute() else f"no such file or folder below {Path.cwd()}"
    raise SourceError(source, where, "check the path, or copy the file there")


def start_of(source: str) -> Path:
    """Return the file or folder from which everything is found that a source of this machine names.

    Raises:
        RuntimeError: it begins with the home of a user who is not known.
    """
    path = Path(without_protocol(source)).expanduser()
    if path.exists():
        return path
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    return Path(*fixed)


def vocabulary_file(folder: Path) -> Path | None:
    """Return the file with the vocabulary of a folder; None where it has none."""
    return next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)


def named_files(data: DataLike) -> dict[str, str]:
    """Return what a job's `data` names, by its field: `data.corpus[0]`."""
    named = {f"data.corpus[{i}]": source for i, source in enumerate(data.corpus)}
    if isinstance(data.validation, Sequence):
        named |= {f"data.validation[{i}]": source for i, source in enumerate(data.validation)}
    return named | ({"data.vocab": data.vocab} if isinstance(data.vocab, str) else {})


def check_files(data: DataLike, elsewhere: Collection[str] = ()) -> dict[str, Sequence[TextFile]]:
    """Check by names and sizes alone that the files which a job names are on this machine and not empty.

    Args:
        data: names the files.
        elsewhere: fields whose files are on other machines, and are not checked.

    Returns:
        The files of this machine that each field names.

    Raises:
        SpecError: with one problem for each source.
    """
    found: dict[str, Sequence[TextFile]] = {}
    problems: list[Problem] = []
    for field, source in named_files(data).items():
        if field in elsewhere:
            continue
        try:
            found[field] = _check(field, source)
        except SourceError as error:
            problems.append(Problem(field, repr(source), error.problem, error.remedy))
        except (OSError, RuntimeError) as error:  # RuntimeError: an unknown user's home
            remedy = "check the file and its permissions"
            problems.append(Problem(field, repr(source), f"cannot be read: {error}", remedy))
    if problems := problems or ([] if elsewhere else _learned_and_held_out(data)):
        raise SpecError(problems)
    return found


def _learned_and_held_out(data: DataLike) -> list[Problem]:
    """Find the sources of held-out text with a file that is also learned. Only the workers look into URLs."""
    if not isinstance(data.validation, Sequence):
        return []
    learned = {_what_it_is(file) for file in _of_this_machine(data.corpus)}
    remedy = "remove it from one of the two; a model is not judged by what it has learned"
    return [
        Problem(f"data.validation[{i}]", repr(source), f"{file} is a file of data.corpus, too", remedy)
        for i, source in enumerate(data.validation)
        for file in [file for file in _of_this_machine([source]) if _what_it_is(file) in learned][:1]
    ]


def _of_this_machine(sources: Sequence[str]) -> Sequence[TextFile]:
    local = [source for source in sources if not is_url(source)]
    return find(local).files if local else ()


def warnings(data: DataLike, phases: Sequence[PhaseLike]) -> list[Problem]:
    """Tell what will surprise the author of a job whose files were checked; from names and sizes alone.

    A token is at least a byte, so a corpus of fewer bytes than a global batch has tokens repeats within each step.
    """
    if any(is_url(source) for source in data.corpus):  # only the workers look there
        return []
    size_bytes = sum(file.state().size_bytes for file in find(data.corpus).files)
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


def _files(source: str, left_out: list[str]) -> list[TextFile]:
    files = list(_remote(source, left_out) if is_url(source) else _local(resolve(source), left_out))
    if not files or not all(is_text(file.name) for file in files):
        raise SourceError(source, "holds no text", f"give a {ALLOWED} file, or a folder or glob of these")
    return files


def _remote(source: str, left_out: list[str]) -> Iterator[TextFile]:
    found = find_remote(source)
    for url, below in found:
        if any(part.startswith(".") for part in below.split("/")):
            left_out.append(f"{url} (hidden)")
        elif is_text(url) or len(found) == 1:
            yield TextFile(url)
        else:
            left_out.append(f"{url} (not {ALLOWED})")


def _local(paths: Sequence[Path], left_out: list[str]) -> Iterator[TextFile]:
    for path in paths:
        if path.is_dir():
            yield from _walk(path, left_out, set())
        elif _is_device(path):
            left_out.append(f"{path} (not a file)")
        elif is_text(path.name) or len(paths) == 1:
            yield TextFile(str(path.absolute()))
        else:
            left_out.append(f"{path} (not {ALLOWED})")


def _walk(folder: Path, left_out: list[str], visited: set[tuple[int, int]]) -> Iterator[TextFile]:
    """Yield the text files below a folder in the order of their names; a folder that links lead back to, once."""
    if _inode(folder) in visited:
        return
    visited.add(_inode(folder))
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            left_out.append(f"{path} (hidden)")
        elif path.is_dir():
            yield from _walk(path, left_out, visited)
        elif _is_device(path):
            left_out.append(f"{path} (not a file)")
        elif is_text(path.name):
            yield TextFile(str(path.absolute()))
        else:
            left_out.append(f"{path} (not {ALLOWED})")


def _is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which a reader would wait for without end."""
    return path.exists() and not path.is_file()


def _what_it_is(file: TextFile) -> object:
    return file.name if file.is_remote else _inode(Path(file.name))


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _check(field: str, source: str) -> Sequence[TextFile]:
    if is_url(source) and field != "data.vocab":
        check_protocol(source)  # what lies there is the workers' to see: they have the credentials
        return ()
    if is_url(source):
        raise SourceError(source, "a vocabulary is read from this machine alone", "copy it here, or give a size")
    path = Path(without_protocol(source)).expanduser()
    if not source.startswith("builtin:") and not path.is_absolute():
        raise SourceError(source, "a relative path means nothing to the server", "write an absolute path")
    files = _vocabulary(source, path) if field == "data.vocab" else _files(source, [])
    if not any(file.state().size_bytes for file in files):
        raise SourceError(source, "holds no text", f"name a {ALLOWED} file with text, or a folder or glob of these")
    return files


def _vocabulary(source: str, path: Path) -> Sequence[TextFile]:
    file = vocabulary_file(path) if path.is_dir() else resolve(source)[0]
    if file is None:
        raise SourceError(source, f"holds no {' or '.join(VOCABULARIES)}", "name a vocab.txt, or give a size")
    if _is_device(file):
        raise SourceError(source, "is not a file", "name a vocab.txt, or give a size")
    return [TextFile(str(file))]


def check_protocol(url: str) -> None:
    """Make sure that there is a file system for a URL.

    Raises:
        SourceError: none has this name, or its package is not installed.
    """
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(url.partition("://")[0])
    except (ValueError, ImportError) as error:
        raise SourceError(url, str(error), "correct data.corpus, or install that package") from error
