"""A checkpoint → a folder that `transformers` loads, offline and without this package.

- config.json, model.safetensors: `BertForPreTraining`, tied weights once
- tokenizer.json, tokenizer_config.json, vocab.txt: the same token numbers as in training
- README.md: the model card
- manifest.json: what the folder holds; a folder without it is no finished export

The folder is written beside its place, under another name, and renamed when it is whole.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from workers.contract.exports import ExportManifest, read_export
from workers.contract.files import replacing_folder
from workers.contract.manifests import MANIFEST, StoredFile, identity
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.sources import CorpusError
from workers.contract.spec.job import JobSpec
from workers.corpus import shards, tokenizer_files, vocabulary
from workers.corpus.prepare import prepare
from workers.model.bert import configuration

from .errors import DamagedError, ExportError
from .load import committed
from .model_card import model_card
from .weights import Progress, read_weights, silent

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_EMBEDDING = "bert.embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class Exported:
    """A model that was exported."""

    path: Path
    manifest: ExportManifest


def export(
    folder: RunFolder,
    spec: JobSpec,
    target: Path,
    data: Path,
    *,
    step: int | None = None,
    report: Progress = silent,
) -> Exported:
    """Export a run's newest checkpoint, or that of a step. One process does this, whatever the number of workers was.

    Args:
        folder: the run.
        spec: the run's specification.
        target: the folder to make; an older export in its place is replaced at once when the new one is whole.
        data: where prepared text is kept, for runs whose folder has no tokenizer yet.
        step: which checkpoint.
        report: told of the progress.

    Raises:
        ExportError: there is no such checkpoint, it is damaged, or `target` is another folder.
        CorpusError: the vocabulary of an older run is needed, and its text cannot be found any more.
        BusyError: another process exports to `target`.
        RunFolderError, UnknownFormatError: the run folder cannot be read.
        OSError: the disk is full or not writable, or a store on another machine cannot be read (StorageError); an
            older export is as it was.
    """
    folder.manifest()  # refuses what a newer version wrote
    name = choose(folder, spec, step)
    _check_is_ours(target)
    tokenizer = folder.tokenizer() or _tokenizer_of_text(folder, spec, data)
    try:
        weights = read_weights(folder, name, report)
    except DamagedError as error:
        raise ExportError(f"{folder.store.place(name.prefix)} is damaged: {error}. {_older(folder, name)}") from error
    with replacing_folder(target) as draft:
        report("writing", 0.0)
        _write_model(draft, spec, weights, tokenizer)
        card = model_card(folder, spec, name.step, sum(weight.numel() for weight in weights.values()))
        (draft / CARD).write_text(card, encoding="utf-8")
        manifest = ExportManifest(name=spec.name, step=name.step, attempt=name.attempt, files=_describe(draft, report))
        (draft / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Exported(target, manifest)


def choose(folder: RunFolder, spec: JobSpec, step: int | None) -> CheckpointName:
    """Return the newest finished checkpoint, or the newest one of a step.

    Raises:
        ExportError: there is none; names those that are there.
    """
    there = committed(folder)
    if not there:
        raise ExportError(
            f"{folder.path} has no finished checkpoint: train until the first one, which is due after "
            f"checkpoint.every_steps = {spec.checkpoint.every_steps} steps or at the end of a phase"
        )
    chosen = [name for name in there if step in {None, name.step}]
    if not chosen:
        steps = ", ".join(str(name.step) for name in there)
        raise ExportError(f"{folder.path} has no checkpoint of step {step}: choose one of {steps}")
    return chosen[-1]


def _older(folder: RunFolder, damaged: CheckpointName) -> str:
    """Say which checkpoint to take in the place of a damaged one."""
    there = committed(folder)
    older = there[: there.index(damaged)]
    if not older:
        return "There is no older one: put a copy of it in its place, or train further"
    return f"The next older one is that of step {older[-1].step}: export it with --step {older[-1].step}"


def _check_is_ours(target: Path) -> None:
    is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not is_free and read_export(target) is None:
        raise ExportError(f"{target} exists and is not an export of bigbatch: name another folder, or remove it")


def _tokenizer_of_text(folder: RunFolder, spec: JobSpec, data: Path) -> str:
    """Make the tokenizer of a run that an older version began: from its text, which must be the same."""
    corpus = prepare(spec.data, data)
    begun_on = folder.manifest().identity
    if begun_on not in {None, identity(corpus)}:
        raise CorpusError(
            f"{', '.join(spec.data.corpus)}: not the text, vocabulary and settings that this run was begun on, so its "
            "vocabulary is not known; bring the old ones back"
        )
    return tokenizer_files.publish_prepared(corpus)


def _write_model(draft: Path, spec: JobSpec, weights: dict[str, Tensor], tokenizer: str) -> None:
    tokens = _vocabulary(tokenizer)
    rows = len(weights[_EMBEDDING])
    if rows != len(tokens):
        raise ExportError(
            f"{_EMBEDDING} has {rows:,} rows, and the run's vocabulary has {len(tokens):,} tokens: tokenizer.json in "
            "the run folder is another run's; bring the right one back"
        )
    config = configuration(spec.model, rows, pad_id=tokens.index(vocabulary.PAD))
    config.architectures, config.dtype = ["BertForPreTraining"], str(weights[_EMBEDDING].dtype).removeprefix("torch.")
    (draft / CONFIG).write_text(config.to_json_string(), encoding="utf-8")
    save_file(weights, draft / WEIGHTS, metadata={"format": "pt"})
    (draft / WEIGHTS).chmod((draft / CONFIG).stat().st_mode)  # safetensors lets its owner alone read it
    (draft / tokenizer_files.TOKENIZER).write_text(tokenizer, encoding="utf-8")
    settings = tokenizer_files.configuration(tokenizer, spec.model.max_positions)
    (draft / tokenizer_files.TOKENIZER_CONFIG).write_text(settings, encoding="utf-8")
    (draft / shards.VOCABULARY).write_bytes(vocabulary.as_bytes(tokens))


def _vocabulary(tokenizer: str) -> list[str]:
    try:
        return tokenizer_files.vocabulary_of(tokenizer)
    except Exception as error:  # tokenizers raises nothing more special
        message = f"tokenizer.json in the run folder cannot be read: {error}; bring it back, or remove it"
        raise ExportError(f"{message} where the run's text is still there") from error


def _describe(draft: Path, report: Progress) -> dict[str, StoredFile]:
    """Have every file survive a loss of power, and return what it holds."""
    files = {}
    names = sorted(path.name for path in draft.iterdir())
    for number, name in enumerate(names):
        report("writing", (number + 1) / len(names))
        with (draft / name).open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = StoredFile(size_bytes=file.tell(), sha256=digest)
    return files
