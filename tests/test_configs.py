from pathlib import Path

import pytest

from workers.contract.documents import read_spec
from workers.contract.sources import check_files

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_a_valid_job_named_like_its_file(path: Path) -> None:
    assert read_spec(path.read_text()).name == path.stem


def test_the_demo_needs_no_file_of_its_user() -> None:
    check_files(read_spec((Path(__file__).parent.parent / "configs" / "demo.yaml").read_text()).data)


def test_bert_large_takes_the_steps_and_samples_of_the_published_recipe() -> None:
    spec = read_spec((Path(__file__).parent.parent / "configs" / "bert-large-76min.yaml").read_text())
    assert spec.total_steps == 7038 + 1563
    assert spec.world_sizes() == [4, 8]
    assert [(phase.seq_len, phase.global_batch_size) for phase in spec.phases] == [(128, 65_536), (512, 32_768)]
