import torch

from workers.samples.batch import Batch


def batch() -> Batch:
    ids = torch.arange(6).view(2, 3)
    ones = torch.ones(2, 3, dtype=torch.int64)
    return Batch(ids, ones, ones, torch.tensor([1, 4]), torch.tensor([7, 8]), torch.tensor([0, 1]), n_tokens=6)


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    moved = batch().to("meta")
    assert all(tensor.device.type == "meta" for tensor in moved if isinstance(tensor, torch.Tensor))
    assert moved.n_tokens == 6


def test_a_batch_that_moves_keeps_its_values() -> None:
    for before, after in zip(batch(), batch().to(torch.device("cpu")), strict=True):
        assert torch.equal(torch.as_tensor(before), torch.as_tensor(after))
