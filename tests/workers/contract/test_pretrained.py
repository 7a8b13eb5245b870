import json
from pathlib import Path
from typing import Any

import pytest

from workers.contract.documents import parse_spec, read_file
from workers.contract.pretrained import check_folder, is_lowercase
from workers.contract.problems import SpecError
from workers.contract.spec.model import Model

SIZES = {"layers": 2, "hidden": 16, "heads": 2, "intermediate": 32, "max_positions": 32}
CONFIG = {
    "model_type": "bert",
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def model(folder: Path | str) -> Model:
    return Model.model_validate(SIZES | {"init_from": str(folder)})


def write(folder: Path, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return folder


def problems(model: Model) -> list[str]:
    with pytest.raises(SpecError) as caught:
        check_folder(model)
    return [str(problem) for problem in caught.value.problems]


def test_a_bert_of_the_same_sizes_is_taken_and_so_is_no_folder_at_all(tmp_path: Path) -> None:
    check_folder(model(write(tmp_path)))
    check_folder(Model.model_validate(SIZES))


def test_each_size_that_differs_is_named_with_the_one_to_write(tmp_path: Path) -> None:
    first, second = problems(model(write(tmp_path, num_attention_heads=4, max_position_embeddings=512)))
    assert first == f"model.heads = 2: {tmp_path} has 4. Remedy: write heads: 4."
    assert second == f"model.max_positions = 32: {tmp_path} has 512. Remedy: write max_positions: 512."


@pytest.mark.parametrize(
    ("field", "value"),
    [("model_type", "roberta"), ("hidden_act", "gelu_new"), ("tie_word_embeddings", False), ("layer_norm_eps", 1e-5)],
)
def test_another_kind_of_model_is_refused_with_the_setting_that_differs(field: str, value: Any, tmp_path: Path) -> None:
    (problem,) = problems(model(write(tmp_path, **{field: value})))
    assert f"its {field} is {value!r}, and this BERT's is" in problem


def test_what_is_no_folder_of_transformers_is_refused(tmp_path: Path) -> None:
    assert "no readable config.json" in problems(model(tmp_path))[0]
    assert "no readable config.json" in problems(model(tmp_path / "absent"))[0]
    assert "write an absolute path" in problems(model("models/bert"))[0]


@pytest.mark.parametrize(
    ("tokenizer", "settings", "expected"),
    [
        ({"normalizer": {"lowercase": False}}, {"do_lower_case": True}, False),  # the file that is used counts
        (None, {"do_lower_case": True, "strip_accents": None}, True),
        ({"normalizer": None}, None, None),
    ],
)
def test_the_case_of_a_tokenizer_is_read_where_it_says(
    tokenizer: Any, settings: Any, expected: bool | None, tmp_path: Path
) -> None:
    for name, document in {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}.items():
        if document is not None:
            (tmp_path / name).write_text(json.dumps(document))
    assert is_lowercase(tmp_path) is expected


def test_a_tokenizer_that_keeps_accents_in_lower_case_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": false}')
    with pytest.raises(ValueError, match="strip_accents is False"):
        is_lowercase(tmp_path)


def test_a_job_takes_the_vocabulary_of_its_folder_unless_it_names_one(tmp_path: Path) -> None:
    phase = {"seq_len": 16, "global_batch_size": 8, "micro_batch_size": 4, "steps": 1, "lr": 0.01}
    job: dict[str, Any] = {"name": "t", "data": {"corpus": ["builtin:austen"]}, "phases": [phase]}
    job["model"] = SIZES | {"init_from": "models/bert"}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    spec = parse_spec(read_file(tmp_path / "job.yaml"))
    assert (spec.model.init_from, spec.data.vocab) == (str(tmp_path / "models" / "bert"),) * 2
    job["data"]["vocab"] = 1000
    assert parse_spec(job).data.vocab == 1000
