import pytest
import yaml

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError


def test_left_open_the_device_decides_whether_to_compile_and_activations_are_kept() -> None:
    assert (spec().execution.compile, spec().execution.activation_checkpointing) == ("auto", False)


@pytest.mark.parametrize(
    ("written", "read"),
    [("on", "on"), ("off", "off"), ("true", "on"), ("false", "off"), ("'on'", "on"), ("auto", "auto")],
)
def test_on_and_off_are_read_however_yaml_reads_them(written: str, read: str) -> None:
    assert spec(execution=yaml.safe_load(f"compile: {written}")).execution.compile == read


@pytest.mark.parametrize("value", ["maybe", 1, None])
def test_what_is_no_switch_is_refused_with_what_may_be_written(value: object) -> None:
    with pytest.raises(SpecError, match=r"execution\.compile = .*auto"):
        spec(execution={"compile": value})


def test_whether_activations_are_computed_again_is_a_switch() -> None:
    with pytest.raises(SpecError, match=r"execution\.activation_checkpointing = 'auto'"):
        spec(execution={"activation_checkpointing": "auto"})
