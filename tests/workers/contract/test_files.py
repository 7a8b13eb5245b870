import stat
from pathlib import Path

import pytest

from workers.contract.files import BusyError, SecretError, replacing, replacing_folder, secret, write_private


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


@pytest.mark.parametrize("text", ["", "\n", "a" * 19, "a" * 30 + " b", "ü" * 40, "a\nb" * 20])
def test_a_token_that_could_be_guessed_is_refused_with_its_file_and_the_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(SecretError, match=r"token holds \d+ characters, .*at least 20.*: remove the file"):
        secret(tmp_path / "token")


def test_a_token_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff" * 40)
    with pytest.raises(SecretError, match=r"token cannot be read .*: remove it"):
        secret(tmp_path / "token")


def test_a_token_that_others_could_read_is_closed_to_them_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text("a" * 20)
    path.chmod(0o644)
    assert secret(path) == "a" * 20
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "was open to other users (mode 0644)" in caplog.text
    caplog.clear()
    secret(path)
    assert caplog.text == ""


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
