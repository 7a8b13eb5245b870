from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from tests.workers.planning.planned import make_spec
from workers.contract.documents import parse_spec, read_file
from workers.planning.attempt import Attempt
from workers.planning.disk import checkpoint_bytes

RUN = Path(__file__).parents[2] / "data/run_folders/format-1"


def test_the_tensors_of_a_checkpoint_are_as_large_as_those_that_torch_has_written() -> None:
    attempt = Attempt(parse_spec(read_file(RUN / "spec.yaml")), 300, 1, 1)
    metadata = FileSystemReader(RUN / "checkpoints/step-00000004-a1").read_metadata()
    tensors = [each for each in metadata.state_dict_metadata.values() if isinstance(each, TensorStorageMetadata)]
    assert checkpoint_bytes(attempt) == sum(each.size.numel() * each.properties.dtype.itemsize for each in tensors)


def test_neither_workers_nor_stage_change_a_checkpoint() -> None:
    one = Attempt(make_spec(), 90, 1, 0)
    assert checkpoint_bytes(one) == checkpoint_bytes(replace(one, workers=4, stage=3))


@pytest.mark.parametrize(("moments", "of_both"), [("full", 8), ("bfloat16", 4), ("8bit", 8)])
def test_moments_of_8_bits_are_saved_as_float32(moments: str, of_both: int) -> None:
    changes: dict[str, Any] = {"optimizer": {"moments": moments}}
    attempt, plain = Attempt(make_spec(**changes), 90, 1, 1), Attempt(make_spec(), 90, 1, 1)
    assert checkpoint_bytes(attempt) - checkpoint_bytes(plain) == (of_both - 8) * attempt.parameters.elements
