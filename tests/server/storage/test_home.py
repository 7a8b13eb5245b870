import stat
from pathlib import Path

import pytest

from server.settings import Settings
from server.storage.home import close_home


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


def test_a_home_that_others_could_read_is_closed_to_them_with_a_warning_for_each_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    (home / "runs").mkdir(parents=True, mode=0o755)
    home.chmod(0o755)
    for name in ("bigbatch.db", "bigbatch.db-wal"):
        (home / name).touch(mode=0o644)
    (home / "elsewhere").symlink_to(tmp_path / "gone")
    close_home(Settings(home))
    (home / "elsewhere").unlink()
    assert _modes(home) == {"home": 0o700, "runs": 0o700, "bigbatch.db": 0o600, "bigbatch.db-wal": 0o600}
    assert len(caplog.records) == 4
    assert f"{home / 'bigbatch.db'} was open to other users (mode 0644)" in caplog.text


def test_a_home_that_is_missing_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    close_home(Settings(tmp_path / "new" / "home"))
    assert _modes(tmp_path / "new" / "home") == {"home": 0o700}
