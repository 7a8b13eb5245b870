from pathlib import Path

import pytest

from tests.workers.conftest import write_positions
from workers.samples.dataset import PreTrainingData
from workers.samples.survey import ROWS, Survey, survey


def of(folder: Path, seq_len: int) -> Survey:
    return survey(PreTrainingData(folder, seq_len=seq_len, seed=0))


@pytest.mark.parametrize("seq_len", [16, 64, 256])
def test_a_survey_agrees_with_the_batches_of_the_first_steps(prepared: Path, seq_len: int) -> None:
    data = PreTrainingData(prepared, seq_len=seq_len, seed=3)
    found, batch = survey(data), data.batch(range(ROWS))
    assert (found.rows, found.samples_per_row) == (len(data), 1)
    assert found.random == pytest.approx(batch.next_sentence_labels.double().mean().item())
    assert found.padding == pytest.approx(1 - batch.n_tokens / batch.input_ids.numel())


def test_a_text_without_a_real_or_without_a_random_continuation_is_seen_as_such(tmp_path: Path) -> None:
    assert of(write_positions(tmp_path / "a", [[5]] * 30), 32).random == 1
    assert of(write_positions(tmp_path / "b", [[5] * 30]), 32).random == 0


def test_full_samples_have_no_padding(tmp_path: Path) -> None:
    found = of(write_positions(tmp_path, [[4, 9], [9, 4]] * 20), 16)
    assert found.rows == 40
    assert 0 <= found.padding < 0.3
    assert of(write_positions(tmp_path / "b", [[5] * 30]), 8).padding == 0
