import pytest
import torch

from tests.workers.samples.test_batch import batch
from workers.samples.batch import Batch
from workers.training.uploads import MicroBatch, Uploads


def tensors(of: Batch) -> list[torch.Tensor]:
    return [each for each in [*of, *(of.packed or ())] if isinstance(each, torch.Tensor)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_micro_batch_arrives_whole_and_with_its_counts(device: str) -> None:
    there = torch.device(device)
    micro_batch = MicroBatch.on_the_way_to(there, 40, batch())
    arrived = Uploads(there).fetch(micro_batch)
    assert (micro_batch.first_row, micro_batch.pinned) == (40, None)  # only a GPU reads memory that is pinned for it
    assert (arrived.n_tokens, arrived.n_samples) == (6, 2)
    assert [(each.device.type, each.shape) for each in tensors(arrived)] == [
        (device, each.shape) for each in tensors(batch())
    ]
    if device == "cpu":
        assert all(torch.equal(*pair) for pair in zip(tensors(arrived), tensors(batch()), strict=True))
