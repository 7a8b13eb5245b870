"""The small documents that say what a folder holds. Each carries the number of its format."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, TypeAdapter, ValidationError

from .fields import Count
from .problems import fault
from .records import EvaluationRecord
from .sources import CorpusError

MANIFEST = "manifest.json"
VALIDATION = "validation"
"""The folder of a prepared corpus that holds the text kept from training, prepared in the same way."""
SHARDS_FORMAT = 2
"""Of a prepared corpus; raise it whenever the same text would give other files."""
HEAD_BYTES = 4096
"""So much at the beginning of a file is compared with its hash whenever a prepared corpus is opened."""

FOLDER_FORMAT = 1
"""Of a run folder's layout; raise it when an older version could no longer read the folder."""
JOURNAL_FORMAT = 2
"""Of the records in `events.jsonl`; raise it when an older version could no longer read them."""
SAMPLES_FORMAT = 2
"""Of what the rows of a step hold; raise it whenever the same seed and row number would give another row."""
CHECKPOINT_FORMAT = 2
"""Of a checkpoint's folder; raise it when an older version could no longer read the folder."""


_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class UnknownFormatError(ValueError):
    """A newer version of bigbatch wrote this."""


def _without_folder(name: str) -> str:
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise fault(f"{name!r} is not the name of a file in the manifest's folder", "copy the folder anew")
    return name


FileName = Annotated[str, AfterValidator(_without_folder)]
"""Of a file in the manifest's own folder; a path could lead out of it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class HashedFile(_Frozen):
    """A file beside a manifest."""

    name: FileName
    bytes: int
    sha256: str


class HashedText(_Frozen):
    """The content of a text file. Its name and folder are not here: they change nothing."""

    bytes: int
    sha256: str
    kind: Literal["jsonl", "parquet"] | None = None
    """How the bytes become documents; absent where they are plain text."""


class ShardsSettings(_Frozen):
    """The settings that a prepared corpus depends on."""

    vocab: int | str
    """The size asked for, or the sha256 of the vocabulary file that was given."""
    lowercase: bool
    validation: float | None = None
    """Share of the documents that is kept from training; absent where none is split off."""
    encoding_errors: Literal["replace"] | None = None
    """Absent where bytes that are not UTF-8 were refused."""
    text_column: str | None = None
    """Where the text stands in .jsonl and .parquet files; absent where there is none of these."""
    deduplicate: Literal[True] | None = None
    """Absent where paragraphs that stand earlier in the text were not left out."""


class ShardsManifest(_Frozen):
    """What a prepared corpus holds. Equal text, vocabulary and settings give equal bytes on every machine."""

    format: int
    text: tuple[HashedText, ...]
    settings: ShardsSettings
    tokens: int
    unknown: int
    """How many of the tokens are [UNK]."""
    sentences: int
    documents: int
    vocab_size: int
    special_ids: Mapping[str, int]
    """The numbers of [PAD], [UNK], [CLS], [SEP] and [MASK] in the vocabulary."""
    unigram_entropy_nats: float
    """Entropy of the token distribution of the text: the loss of a model that knows only how frequent tokens are."""
    files: tuple[HashedFile, ...]
    validation: str | None = None
    """sha256 of the manifest of the text kept from training; absent where there is none."""
    heads: Mapping[str, str] | None = None
    """sha256 of the first `HEAD_BYTES` of each file; absent in manifests of older versions. No part of the identity."""

    def document(self) -> str:
        """Return the text of `manifest.json`.

        What is absent is left out, so that equal text has the identity that older versions gave it.
        """
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"


def identity(folder: Path) -> str:
    """Return the sha256 of a prepared corpus's manifest. It names everything that decides which samples a run sees.

    Raises:
        CorpusError: the folder holds no complete prepared corpus.
        UnknownFormatError: a newer version prepared it.
    """
    manifest = read_shards(folder).model_copy(update={"heads": None})
    return hashlib.sha256(manifest.document().encode()).hexdigest()


def read_shards(folder: Path) -> ShardsManifest:
    """Read the manifest of a prepared corpus and check that each file is there in its full length with its first bytes.

    Raises:
        CorpusError: the manifest cannot be read, an older version wrote it, or a file is missing, cut or another one.
        UnknownFormatError: a newer version wrote it.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        check_format(path, content, "format", SHARDS_FORMAT)
        if (found := _OBJECT.validate_json(content).get("format")) != SHARDS_FORMAT:
            raise CorpusError(f"{path}: format {found} of an older version; prepare the text again")
        manifest = ShardsManifest.model_validate_json(content)
    except (OSError, ValidationError) as error:
        raise CorpusError(f"{folder}: no complete prepared corpus; prepare the text again") from error
    for file in manifest.files:
        _check_head(folder / file.name, file, (manifest.heads or {}).get(file.name))
    if manifest.validation is not None and identity(folder / VALIDATION) != manifest.validation:
        raise CorpusError(f"{folder / VALIDATION}: not the text that was kept from training; prepare the text again")
    return manifest


def _check_head(path: Path, file: HashedFile, sha256: str | None) -> None:
    if not path.is_file() or path.stat().st_size != file.bytes:
        raise CorpusError(f"{path}: missing or not {file.bytes:,} bytes long; prepare the text again")
    if sha256 is None:
        return
    with path.open("rb") as stream:
        if hashlib.sha256(stream.read(HEAD_BYTES)).hexdigest() != sha256:
            raise CorpusError(f"{path}: does not begin with the bytes that were written; prepare the text again")


class Parent(_Frozen):
    """What a branch went on from."""

    run: str
    """The id of a job, or the path of a run folder."""
    step: int
    """Step of the checkpoint."""


class RunManifest(BaseModel):
    """`run.json`: what a run folder is."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: StrictInt = FOLDER_FORMAT
    journal_format: StrictInt = JOURNAL_FORMAT
    identity: str | None = None
    """sha256 of the prepared corpus's manifest; null until the corpus is prepared for the first time."""
    attempt: Count = 0
    """The newest attempt; 0 before the first."""
    parent: Parent | None = None
    """Of a branch."""

    def in_attempt(self, attempt: int) -> Self:
        """Return the manifest as it is once an attempt of this version has begun to write in the folder."""
        return self.model_copy(update={"attempt": attempt, "format": FOLDER_FORMAT, "journal_format": JOURNAL_FORMAT})


class StoredFile(BaseModel):
    """What a file held when it was written."""

    model_config = ConfigDict(frozen=True, strict=True)

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: str | None = None
    """Absent in format 1."""


class CheckpointManifest(BaseModel):
    """`manifest.json` of a checkpoint: what the whole checkpoint holds. It is written last."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: StrictInt = CHECKPOINT_FORMAT
    step: Annotated[int, Field(ge=0)]
    world_size: Annotated[int, Field(ge=1)]
    attempt: Annotated[int, Field(ge=0)] = 0
    identity: str | None = None
    """Of what the run was trained on, as in `run.json`; absent in format 1."""
    samples_format: int = 1
    """How the rows up to its step were drawn, which a version that does not say so did in the first way."""
    files: dict[FileName, StoredFile]
    """All but this one."""
    is_sound: bool = True
    """Whether the loss was in good order when it was written; in format 1 nobody looked."""
    best_loss: float | None = None
    """The lowest loss between two checkpoints up to this one, in nats."""
    evaluation: EvaluationRecord | None = None
    """The newest one up to this checkpoint, where there is held-out text; absent in older ones."""
    tokens: int | None = None
    """Learned up to this step, over all attempts; absent in older ones, as is the next."""
    seconds: float | None = None
    """Spent up to this step, over all attempts."""

    @classmethod
    def parse(cls, path: Path | str, content: bytes) -> Self:
        """Read a manifest of this format or an older one; `path` is where it lies.

        Raises:
            ValueError: the content is not a manifest, or one of a newer format.
        """
        try:
            check_format(path, content, "format", CHECKPOINT_FORMAT)
            return cls.model_validate(_as_format_2(_OBJECT.validate_json(content)))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"] if part != "[key]") or "(document)"
            raise ValueError(f"{field}: {first['msg']}") from None


def check_format(path: Path | str, content: bytes, field: str, known: int) -> None:
    """Refuse a JSON object whose `field` has a higher number than this version knows, before it is read further.

    Raises:
        UnknownFormatError: says which file, and what to do.
        ValidationError: the content is not a JSON object.
    """
    found = _OBJECT.validate_json(content).get(field)
    if isinstance(found, int) and found > known:
        raise UnknownFormatError(
            f"{path} has {field} {found}, and this version of bigbatch reads up to {known}; "
            "it was written by a newer version: use that one"
        )


def _as_format_2(document: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had neither a number nor an attempt, and of each file only its size."""
    if "format" in document or not isinstance(sizes := document.get("sizes_bytes"), dict):
        return document
    files = {name: {"size_bytes": size} for name, size in sizes.items()}
    return {"format": 1, "step": document.get("step"), "world_size": document.get("world_size"), "files": files}
