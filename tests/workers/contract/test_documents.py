import json
import re
from pathlib import Path

import pytest

from workers.contract.documents import (
    parse_spec,
    read_document,
    read_json_document,
    read_spec,
    resolve_paths,
)
from workers.contract.problems import Problem, SpecError

GOOD = {
    "name": "tiny",
    "data": {"corpus": ["builtin:austen"]},
    "phases": [{"seq_len": 64, "global_batch_size": 64, "steps": 3, "lr": 1e-3}],
}


def problems(document: object) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_spec(document)
    return caught.value.problems


def test_yaml_and_json_of_one_job_give_one_specification() -> None:
    yaml = """
        name: tiny
        data: {corpus: ["builtin:austen"]}
        phases:
        - {seq_len: 64, global_batch_size: 64, steps: 3, lr: 1e-3}
        """
    json = """{"name": "tiny", "data": {"corpus": ["builtin:austen"]},
        "phases": [{"seq_len": 64, "global_batch_size": 64, "steps": 3, "lr": 0.001}]}"""
    assert read_spec(yaml) == read_spec(json) == parse_spec(GOOD)


def test_malformed_yaml_names_line_and_column() -> None:
    with pytest.raises(SpecError, match="line 2, column"):
        read_document("name: tiny\ndata: {corpus: [")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: tiny\nseed: 1\nname: small\n", "line 3, column 1 = 'name'"),
        ("data:\n  vocab: 1\n  vocab: 2\n", "line 3, column 3 = 'vocab'"),
        ("phases: [{lr: 1, lr: 2}]", "line 1, column 18 = 'lr'"),
        ("'a': 1\na: 2", "line 2, column 1 = 'a'"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(text: str, place: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"{place}: this key is given twice")):
        read_document(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"name": "tiny",\n "seed": 1,\n "name": "small"}', "line 3, column 2 = 'name'"),
        ('{\n\t"data": {\n\t\t"vocab": 1,\n\t\t"vocab": 2}}', "line 4, column 3 = 'vocab'"),
        (f'{{"{"k" * 2000}": 1, "{"k" * 2000}": 2}}', f"(document) = '{'k' * 2000}'"),
    ],
    ids=["plain", "tabs", "a key too long for YAML"],
)
def test_a_key_that_stands_twice_in_json_is_refused_too(text: str, place: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"{place}: this key is given twice")):
        read_json_document(text)


def test_one_key_in_two_mappings_is_no_repetition() -> None:
    text = '{"a": {"x": 1}, "b": [{"x": 1}, {"x": 2}]}'
    assert read_document(text) == read_json_document(text) == json.loads(text)


def test_aliases_are_refused_so_that_a_small_text_cannot_expand() -> None:
    with pytest.raises(SpecError, match="aliases are not allowed"):
        read_document("a: &a [1, 2]\nb: [*a, *a]")


def test_a_document_that_is_not_a_mapping_is_refused() -> None:
    (problem,) = problems(["name", "tiny"])
    assert "mapping" in problem.problem


def test_an_unknown_key_is_refused_and_the_nearest_known_one_named() -> None:
    (problem,) = problems(GOOD | {"optimiser": {}})
    assert (problem.field, problem.remedy) == ("optimiser", "did you mean 'optimizer'?")


def test_every_wrong_field_is_told_at_once_with_field_value_and_remedy() -> None:
    phase = {"seq_len": "long", "global_batch_size": 64, "steps": 0, "lr": 1e-3}
    found = {problem.field: problem for problem in problems(GOOD | {"phases": [phase]})}
    assert set(found) == {"phases[0].seq_len", "phases[0].steps"}
    assert found["phases[0].seq_len"].value == "'long'"
    assert found["phases[0].steps"].remedy == "write a value of at least 1"


def test_a_missing_field_is_told_as_absent() -> None:
    (problem,) = problems({"name": "tiny", "phases": GOOD["phases"]})
    assert (problem.field, problem.value, problem.remedy) == ("data", "(absent)", "add this field")


def test_a_vocabulary_larger_than_uint16_is_refused() -> None:
    (problem,) = problems(GOOD | {"data": {"corpus": ["builtin:austen"], "vocab": 65_537}})
    assert (problem.field, problem.value) == ("data.vocab", "65537")


def test_a_batch_that_does_not_divide_names_the_numbers_and_the_nearest_that_would_work() -> None:
    phase = {"seq_len": 64, "global_batch_size": 100, "steps": 3, "lr": 1e-3}
    (problem,) = problems(GOOD | {"phases": [phase], "parallel": {"workers": 2}})
    assert (problem.field, problem.value) == ("phases[0].global_batch_size", "100")
    assert problem.remedy == "write 64 or 128, or change micro_batch_size"


def test_a_sequence_longer_than_the_position_embedding_is_refused() -> None:
    (problem,) = problems(GOOD | {"model": {"preset": "bert-tiny", "max_positions": 32}})
    assert (problem.field, problem.value) == ("phases[0].seq_len", "64")


def test_relative_paths_are_seen_from_the_folder_of_the_file(tmp_path: Path) -> None:
    document = {
        "data": {"corpus": ["a.txt", "builtin:austen", "/b.txt"], "vocab": "vocab.txt", "validation": ["c.txt"]}
    }
    data = resolve_paths(document, tmp_path)["data"]
    assert data["corpus"] == [str(tmp_path / "a.txt"), "builtin:austen", "/b.txt"]
    assert data["vocab"] == str(tmp_path / "vocab.txt")
    assert data["validation"] == [str(tmp_path / "c.txt")]
    assert resolve_paths({"data": {"validation": 0.1}}, tmp_path)["data"]["validation"] == 0.1


def test_a_url_is_no_relative_path(tmp_path: Path) -> None:
    data = {"corpus": ["hf://datasets/somebody/texts", "s3://bucket/a.txt"], "validation": ["memory://a.txt"]}
    assert resolve_paths({"data": data}, tmp_path)["data"] == data
    of_this_machine = {"corpus": ["file:///a.txt"], "vocab": "file:///vocab.txt"}
    assert resolve_paths({"data": of_this_machine}, tmp_path)["data"] == {"corpus": ["/a.txt"], "vocab": "/vocab.txt"}


@pytest.mark.parametrize(
    "text", ["name: 2024-13-45", "name: " + "9" * 5_000, "[" * 5_000], ids=["date", "number", "deep"]
)
def test_yaml_that_python_cannot_hold_is_a_problem_and_no_crash(text: str) -> None:
    with pytest.raises(SpecError, match="not valid YAML"):
        read_document(text)


def test_a_path_that_cannot_be_resolved_is_left_for_the_check_of_files(tmp_path: Path) -> None:
    corpus = ["~nobody-of-this-name/a.txt"]
    assert resolve_paths({"data": {"corpus": corpus}}, tmp_path)["data"]["corpus"] == corpus
