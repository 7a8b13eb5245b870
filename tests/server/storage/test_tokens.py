from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from server.callers import ADMIN, Caller, Role
from server.errors import TokenNotFoundError
from server.storage.database import Database
from server.storage.tokens import Tokens
from workers.contract.files import SecretError

DAY = timedelta(days=1)


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    database = Database(tmp_path / "test.db")
    yield Tokens(database, tmp_path / "admin.token")
    database.close()


def test_a_token_is_its_owners_until_it_is_revoked(tokens: Tokens) -> None:
    known, token = tokens.create("ada", Role.READER, DAY, "admin")
    assert (tokens.caller(token), tokens.caller(token + "x")) == (Caller("ada", Role.READER), None)
    assert tokens.all() == [known]
    assert known.expires_at - known.created_at == DAY
    tokens.revoke(known.id)
    assert (tokens.caller(token), tokens.all()) == (None, [])
    with pytest.raises(TokenNotFoundError, match=known.id):
        tokens.revoke(known.id)


def test_a_token_that_has_expired_opens_nothing_and_is_still_listed(tokens: Tokens) -> None:
    known, token = tokens.create("ada", Role.ADMIN, timedelta(0), "admin")
    assert (tokens.caller(token), tokens.open_session(token), tokens.all()) == (None, None, [known])


def test_neither_tokens_nor_sessions_can_be_read_in_the_database(tokens: Tokens, tmp_path: Path) -> None:
    _, token = tokens.create("ada", Role.OPERATOR, DAY, "admin")
    session = tokens.open_session(token)
    assert session is not None
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("test.db*"))
    assert b"ada" in stored
    assert not any(each.encode() in stored for each in (token, session))


def test_a_session_may_do_what_its_token_may_until_either_ends(tokens: Tokens) -> None:
    known, token = tokens.create("ada", Role.OPERATOR, DAY, "admin")
    first, second = tokens.open_session(token), tokens.open_session(token)
    assert first is not None
    assert second is not None
    assert first != second
    assert tokens.session_caller(first) == Caller("ada", Role.OPERATOR)
    assert tokens.caller(first) is None  # a session is no token
    tokens.close_session(first)
    assert (tokens.session_caller(first), tokens.session_caller(second)) == (None, Caller("ada", Role.OPERATOR))
    tokens.revoke(known.id)
    assert tokens.session_caller(second) is None


def test_a_new_admin_token_takes_the_place_of_the_old_one_and_ends_its_sessions(tokens: Tokens, tmp_path: Path) -> None:
    file = tmp_path / "admin.token"
    old = file.read_text().strip()
    session = tokens.open_session(old)
    assert session is not None
    assert tokens.session_caller(session) == tokens.caller(old) == ADMIN
    new = tokens.rotate_admin()
    assert file.read_text().strip() == new
    assert (tokens.caller(new), tokens.caller(old), tokens.session_caller(session)) == (ADMIN, None, None)


def test_an_empty_text_opens_nothing(tokens: Tokens) -> None:
    assert (tokens.caller(""), tokens.session_caller(""), tokens.open_session("")) == (None, None, None)


def test_an_admin_token_that_could_be_guessed_is_not_served_with(tmp_path: Path) -> None:
    (tmp_path / "admin.token").touch()
    database = Database(tmp_path / "test.db")
    with pytest.raises(SecretError, match=r"admin\.token holds 0 characters"):
        Tokens(database, tmp_path / "admin.token")
    database.close()
