import stat
from pathlib import Path

import pytest

from workers.contract.files import BusyError, replacing, replacing_folder, secret, write_private


def write_half(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"half of the n")
        file.flush()
        raise RuntimeError("the disk is full")


def test_a_file_is_replaced_at_once_and_only_when_its_writer_ended_well(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, "old")
    with pytest.raises(RuntimeError, match="the disk is full"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_owner_reads_a_private_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_private(path, "ü")
    assert path.read_bytes() == "ü".encode()
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path)] == [0o700, 0o600]


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    assert secret(tmp_path / "token") == secret(tmp_path / "token")


def write_half_a_folder(path: Path) -> None:
    with replacing_folder(path) as draft:
        (draft / "new").touch()
        raise RuntimeError("the disk is full")


def test_a_folder_is_replaced_at_once_and_only_when_its_writer_ended_well(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with replacing_folder(path) as draft:
        (draft / "old").touch()
        assert not path.exists()
    with pytest.raises(RuntimeError, match="the disk is full"):
        write_half_a_folder(path)
    assert [file.name for file in path.iterdir()] == ["old"]
    with replacing_folder(path) as draft:
        (draft / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_has_one_writer_at_a_time_and_what_a_killed_one_left_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (tmp_path / ".draft-folder").mkdir()
    (tmp_path / ".draft-folder" / "left").touch()
    with replacing_folder(path) as draft:
        assert list(draft.iterdir()) == []
        with pytest.raises(BusyError, match="another process writes"), replacing_folder(path):
            pass
        (draft / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
