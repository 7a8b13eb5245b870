"""What a folder of `transformers` must be for a job to start from it, known from its small files alone."""

from pathlib import Path
from typing import Any

from .files import read_json
from .problems import Problem, SpecError
from .spec.model import Model

CONFIG = "config.json"
_FIELD = "model.init_from"
_FIXED: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
    "is_decoder": False,
}
"""What our BERT is; a folder that does not say otherwise is this, too."""
_SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "max_positions": "max_position_embeddings",
}


def check_folder(model: Model) -> None:
    """Check that the folder of `model.init_from`, if there is one, holds a BERT of the model's sizes.

    Raises:
        SpecError: with a problem for each thing that differs.
    """
    if model.init_from is None:
        return
    folder = Path(model.init_from).expanduser()
    if not folder.is_absolute():
        raise refusal(model, "a relative path means nothing to the server", "write an absolute path")
    config = read_json(folder / CONFIG) if folder.is_dir() else None
    if config is None:
        remedy = f"name a folder with a {CONFIG} and model.safetensors, such as one that `bigbatch export` has written"
        raise refusal(model, f"is not a folder of transformers on this machine: it has no readable {CONFIG}", remedy)
    if found := [*_other_kind(model, config), *_other_sizes(model, config)]:
        raise SpecError(found)


def is_lowercase(folder: Path) -> bool | None:
    """Tell whether a folder's tokenizer reads text in lower case; None where it does not say.

    Accents are stripped where it does, unless the tokenizer says otherwise; then it is none of ours.

    Raises:
        ValueError: it strips accents of text that it does not read in lower case, or the other way round.
    """
    settings = read_json(folder / "tokenizer_config.json") or {}
    normalizer = (read_json(folder / "tokenizer.json") or {}).get("normalizer") or {}
    lowercase = normalizer.get("lowercase", settings.get("do_lower_case"))
    strips = normalizer.get("strip_accents", settings.get("strip_accents"))
    if strips is not None and lowercase is not None and strips != lowercase:
        raise ValueError(f"strip_accents is {strips} and lowercase is {lowercase}")
    return lowercase


def refusal(model: Model, problem: str, remedy: str) -> SpecError:
    """Return the error of a folder that a job cannot start from."""
    return SpecError([Problem(_FIELD, repr(model.init_from), problem, remedy)])


def _other_kind(model: Model, config: dict[str, Any]) -> list[Problem]:
    remedy = "name the folder of another BERT"
    return [
        Problem(_FIELD, repr(model.init_from), f"its {name} is {config[name]!r}, and this BERT's is {ours!r}", remedy)
        for name, ours in _FIXED.items()
        if config.get(name, ours) != ours
    ]


def _other_sizes(model: Model, config: dict[str, Any]) -> list[Problem]:
    ours = model.architecture.model_dump() | {"max_positions": model.max_positions}
    return [
        Problem(f"model.{name}", str(ours[name]), f"{model.init_from} has {theirs}", f"write {name}: {theirs}")
        for name, key in _SIZES.items()
        if (theirs := config.get(key)) is not None and theirs != ours[name]
    ]
