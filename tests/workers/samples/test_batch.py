import torch

from workers.samples.batch import Batch, Packed


def batch() -> Batch:
    ids = torch.arange(6).view(2, 3)
    ones = torch.ones(2, 3, dtype=torch.int64)
    packed = Packed(ids, torch.tensor([0, 3]), torch.tensor([0, 3, 6], dtype=torch.int32), longest=3)
    masked, labels = torch.tensor([1, 4]), torch.tensor([7, 8])
    return Batch(ids, ones, ones, masked, labels, torch.tensor([0, 1]), n_tokens=6, n_samples=2, packed=packed)


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    moved = batch().to("meta")
    assert moved.packed is not None
    tensors = [value for value in [*moved, *moved.packed] if isinstance(value, torch.Tensor)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 9
    assert moved.n_tokens == 6


def test_a_batch_that_moves_keeps_its_values() -> None:
    before, after = batch(), batch().to(torch.device("cpu"))
    for first, second in zip([*before[:-1], *(before.packed or ())], [*after[:-1], *(after.packed or ())], strict=True):
        assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))
