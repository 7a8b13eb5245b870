import torch

from workers.samples.batch import IGNORED, Batch, Packed, Room


def batch() -> Batch:
    ids = torch.arange(6).view(2, 3)
    ones = torch.ones(2, 3, dtype=torch.int64)
    packed = Packed(ids, torch.tensor([0, 3]), torch.tensor([0, 3, 6]))
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


def test_a_batch_is_rebuilt_from_one_tensor_that_holds_all_of_it() -> None:
    before = batch()
    flat = before.flattened(pin=False)
    after = before.over(flat.clone())
    assert len(flat) == sum(tensor.numel() for tensor in [*before[:6], *(before.packed or ())])
    for first, second in zip([*before[:-1], *(before.packed or ())], [*after[:-1], *(after.packed or ())], strict=True):
        assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))


def test_padding_adds_positions_and_samples_without_a_loss_at_a_token_that_is_never_masked() -> None:
    padded = batch().padded(Room(masked=8, samples=4, boundaries=5))
    assert padded.masked_positions.tolist() == [1, 4, 0, 0, 0, 0, 0, 0]
    assert padded.masked_labels.tolist() == [7, 8, *[IGNORED] * 6]
    assert padded.next_sentence_labels.tolist() == [0, 1, IGNORED, IGNORED]
    assert padded.packed is not None
    assert padded.packed.starts.tolist() == [0, 3, 0, 0]
    assert padded.packed.boundaries.tolist() == [0, 3, 6, 6, 6]
    assert (padded.n_tokens, padded.n_samples) == (6, 2)


def test_rows_of_one_sample_are_padded_in_their_masked_positions_alone() -> None:
    alone = batch()._replace(packed=None)
    padded = alone.padded(Room(masked=8, samples=4, boundaries=5))
    assert len(padded.masked_positions) == len(padded.masked_labels) == 8
    assert padded.next_sentence_labels is alone.next_sentence_labels


def test_a_batch_that_needs_more_than_the_room_gets_the_next_multiple_of_it_and_loses_nothing() -> None:
    many = batch()._replace(masked_positions=torch.arange(1, 4), masked_labels=torch.arange(5, 8))
    padded = many.padded(Room(masked=2, samples=2, boundaries=3))
    assert padded.masked_positions.tolist() == [1, 2, 3, 0]
    assert padded.masked_labels.tolist() == [5, 6, 7, IGNORED]


def test_a_batch_without_pairs_still_has_none_when_it_is_padded() -> None:
    none = batch()._replace(next_sentence_labels=torch.zeros(0, dtype=torch.int64))
    assert none.padded(Room(masked=8, samples=4, boundaries=5)).next_sentence_labels.shape == (0,)
