from pathlib import Path

import numpy as np
import pytest

from tests.workers.conftest import write_positions
from workers.contract.sources import CorpusError
from workers.corpus.shards import Shards
from workers.samples import survey as survey_module
from workers.samples.dataset import PreTrainingData
from workers.samples.survey import survey


@pytest.mark.parametrize("seq_len", [16, 64, 256])
def test_a_survey_agrees_with_the_batches_of_an_epoch(prepared: Path, seq_len: int) -> None:
    found, data = survey(Shards(prepared), seq_len, seed=0), PreTrainingData(prepared, seq_len=seq_len, seed=3)
    assert found.samples == len(data)
    batch = data.batch(range(len(data)))
    five_sigma = 5 * 0.5 / np.sqrt(len(data))
    assert abs(found.random - batch.next_sentence_labels.double().mean().item()) < five_sigma
    assert abs(found.padding - (1 - batch.n_tokens / batch.input_ids.numel())) < five_sigma


def test_a_text_without_a_real_or_without_a_random_continuation_is_seen_as_such(tmp_path: Path) -> None:
    assert survey(Shards(write_positions(tmp_path / "a", [[5]] * 30)), 32, seed=0).random == 1
    assert survey(Shards(write_positions(tmp_path / "b", [[5] * 30])), 32, seed=0).random == 0


def test_full_samples_have_no_padding(tmp_path: Path) -> None:
    found = survey(Shards(write_positions(tmp_path, [[4, 9], [9, 4]] * 20)), 16, seed=0)
    assert found.samples == 40
    assert 0 <= found.padding < 0.3
    assert survey(Shards(write_positions(tmp_path / "b", [[5] * 30])), 8, seed=0).padding == 0


def test_a_long_text_is_judged_by_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = Shards(write_positions(tmp_path, [[5, 7, 6]] * 40))
    whole = survey(shards, 21, seed=0)
    monkeypatch.setattr(survey_module, "MOST_SENTENCES", 30)
    part = survey(shards, 21, seed=0)
    assert part.samples == whole.samples == 40
    assert abs(part.random - 0.5) < 5 * 0.5 / np.sqrt(4096)


def test_a_text_of_which_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="a single sentence of 5 tokens"):
        survey(Shards(write_positions(tmp_path, [[5]])), 64, seed=0)
