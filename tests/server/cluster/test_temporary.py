"""What others have left in a folder for everybody. Another user is played by a link and a file: neither is a folder."""

import os
import stat
from pathlib import Path

import pytest

from server.cluster.temporary import make, place


def test_a_folder_is_made_for_us_alone_and_used_again(tmp_path: Path) -> None:
    assert make(tmp_path / "ours") == place(tmp_path / "ours") == tmp_path / "ours"
    (tmp_path / "ours").chmod(0o755)
    assert make(tmp_path / "ours") == tmp_path / "ours"
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == 0o700


def test_where_something_else_has_the_name_another_one_is_chosen_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ours-2").write_text("")
    assert make(tmp_path / "ours") == place(tmp_path / "ours") == tmp_path / "ours-3"
    assert f"in {tmp_path / 'ours-3'} instead" in caplog.text
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_of_another_user_is_left_to_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert place(tmp_path / "theirs") == tmp_path / "theirs-2"
