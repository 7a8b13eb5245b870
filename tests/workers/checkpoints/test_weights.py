from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from workers.checkpoints.errors import DamagedError
from workers.checkpoints.load import committed
from workers.checkpoints.weights import TIED, read_weights
from workers.contract.run.folder import RunFolder


def test_the_weights_are_read_by_name_to_the_bit_and_tied_ones_once(run: RunFolder, tmp_path: Path) -> None:
    newest, told = committed(run)[-1], list[str]()
    weights = read_weights(run, newest, lambda what, _done: told.append(what))
    dcp_to_torch_save(run.path / newest.prefix, tmp_path / "one.pt")
    expected = torch.load(tmp_path / "one.pt", weights_only=True)["model"]
    assert weights.keys() == expected.keys() - TIED.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert all(torch.equal(expected[tied], expected[name]) for tied, name in TIED.items())
    assert (told[0], told[-1]) == ("checking", "reading")


def test_a_checkpoint_whose_manifest_is_gone_cannot_be_read(run: RunFolder) -> None:
    absent = committed(run)[-1].__class__(step=3, attempt=1)
    with pytest.raises(DamagedError, match=r"manifest\.json cannot be read"):
        read_weights(run, absent, lambda _what, _done: None)
