"""Takes the weights of a folder of `transformers` for the first step of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import BertForPreTraining

from workers.contract.pretrained import is_lowercase, refusal
from workers.contract.sources import CorpusError, vocabulary_file
from workers.contract.spec.model import Model
from workers.corpus import vocabulary

from .bert import PretrainingBert

_EMBEDDING = "bert.embeddings.word_embeddings.weight"
_HEADS = ("cls.", "bert.pooler.")
"""What a folder may lack, such as that of a BertModel or a BertForMaskedLM: it starts anew."""


class Taken(NamedTuple):
    """Which weights a folder and a model do not share."""

    lacking: list[str]
    """Those that the folder lacks: the heads of a plain encoder. They are as they were."""
    left_out: list[str]
    """Those that the model has no place for, such as a classifier's."""


def take_weights(module: PretrainingBert, model: Model, tokens: Sequence[str], *, lowercase: bool) -> Taken:
    """Copy the weights of `model.init_from` into a model, to the bit.

    Args:
        module: gets the weights.
        model: names the folder.
        tokens: the job's vocabulary, in the order of its numbers.
        lowercase: whether the job reads text in lower case.

    Raises:
        SpecError: the folder cannot be read, or another vocabulary or shape is in it; names the first tensor that
            differs.
    """
    folder = Path(str(model.init_from)).expanduser()
    _check_vocabulary(model, folder, tokens, lowercase=lowercase)
    weights, lacking, left_out = _load(model, folder)
    ours = module.state_dict()
    for name in [*ours, *weights]:
        found, wanted = (_shape(each.get(name)) for each in (weights, ours))
        if name not in lacking and found != wanted:
            remedy = "give model and data.vocab those of the folder"
            raise refusal(model, f"{name} has {found} there, and {wanted} in this job", remedy)
        if name in lacking and not name.startswith(_HEADS):
            raise refusal(model, f"it lacks {name}", "name a folder that has the whole encoder of a BERT")
    with torch.no_grad():
        for name in ours.keys() - lacking:
            ours[name].copy_(weights[name])
    return Taken([name for name in ours if name in lacking], sorted(left_out))


def _shape(weight: torch.Tensor | None) -> str:
    return "no place" if weight is None else f"the shape {tuple(weight.shape)}"


def _load(model: Model, folder: Path) -> tuple[dict[str, torch.Tensor], set[str], set[str]]:
    """Read a folder as transformers does: also older names, several files, and an encoder without prefix."""
    try:
        with torch.random.fork_rng(devices=[]):  # weights that are lacking are drawn
            loaded, told = BertForPreTraining.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, dtype=torch.float32
            )
    except Exception as error:  # transformers raises many kinds for a folder that is damaged or of another model
        raise refusal(model, f"its weights cannot be read: {error}", "copy the folder anew") from error
    return loaded.state_dict(), set(told["missing_keys"]), set(told["unexpected_keys"])


def _check_vocabulary(model: Model, folder: Path, tokens: Sequence[str], *, lowercase: bool) -> None:
    if vocabulary_file(folder) is None:
        return  # its size is checked by the shape of the embedding
    try:
        theirs, is_lower = vocabulary.load(folder), is_lowercase(folder)
    except (CorpusError, ValueError) as error:
        raise refusal(model, f"its tokenizer cannot be used: {error}", "name another folder") from error
    differs = next((row for row, (a, b) in enumerate(zip(theirs, tokens, strict=False)) if a != b), None)
    if differs is not None or len(theirs) != len(tokens):
        row = min(len(theirs), len(tokens)) if differs is None else differs
        raise refusal(model, f"{_EMBEDDING} is of another vocabulary: {_rows(row, theirs, tokens)}", _LIKE_THE_FOLDER)
    if is_lower not in {None, lowercase}:
        case = {True: "in lower case", False: "with its case"}
        problem = f"its tokenizer reads text {case[bool(is_lower)]}, and this job {case[lowercase]}"
        raise refusal(model, problem, f"write data.lowercase: {str(is_lower).lower()}")


_LIKE_THE_FOLDER = "leave data.vocab out, which takes the folder's, or name the same vocab.txt"


def _rows(row: int, theirs: Sequence[str], ours: Sequence[str]) -> str:
    both: list[Any] = [repr(tokens[row]) if row < len(tokens) else "absent" for tokens in (theirs, ours)]
    return "row {} is {} there and {} in this job".format(row, *both)
