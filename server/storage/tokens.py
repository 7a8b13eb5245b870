"""Tokens and the sessions of browsers. The database holds their SHA-256 alone.

A hash without salt and repetition is enough: each is 256 random bits, which nobody finds by trying, unlike a password.
For the same reason the lookup by hash tells nothing by the time that it takes.
"""

import hashlib
import secrets
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, insert, select

from server.callers import ADMIN, Caller, Role
from server.errors import TokenNotFoundError
from workers.contract.files import secret, write_private

from .database import Database
from .schema import sessions, tokens

SESSION = timedelta(days=7)
"""How long a browser stays logged in at most."""
_PREFIX = "bigbatch_"  # by which scanners for secrets recognise one, and which never begins with a dash


def digest(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token that was made for somebody; the token itself is not."""

    id: str
    owner: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime


_COLUMNS = [tokens.c[field.name] for field in fields(Token)]


class Tokens:
    """All tokens of a server but those of runs.

    Args:
        database: holds those that were made for somebody, and the sessions.
        admin_file: holds the one that may do everything; it is made where it is missing.

    Raises:
        SecretError: what that file holds could be guessed.
    """

    def __init__(self, database: Database, admin_file: Path) -> None:
        self._database, self._admin_file = database, admin_file
        self._admin = digest(secret(admin_file))

    def caller(self, token: str) -> Caller | None:
        """Return whom a token belongs to; None where it is unknown or has expired."""
        return self._owner(digest(token))

    def create(self, owner: str, role: Role, lifetime: timedelta, created_by: str) -> tuple[Token, str]:
        """Make a token; return what is known of it, and the token, which nobody can read again."""
        now, token = datetime.now(UTC), _PREFIX + secrets.token_urlsafe(32)
        known = Token(secrets.token_hex(6), owner, role, now, created_by, now + lifetime)
        values = {field.name: getattr(known, field.name) for field in fields(known)}
        with self._database.write() as db:
            db.execute(insert(tokens).values(**values, sha256=digest(token)))
        return known, token

    def all(self) -> list[Token]:
        """Return every token that was made and not revoked, the newest first; some may have expired."""
        with self._database.read() as db:
            rows = db.execute(select(*_COLUMNS).order_by(tokens.c.created_at.desc())).mappings()
            return [Token(**dict(row) | {"role": Role(row["role"])}) for row in rows]

    def revoke(self, token_id: str) -> None:
        """Forget a token: from now on it opens nothing, and neither do the sessions that were opened with it.

        Raises:
            TokenNotFoundError: no token has this id.
        """
        with self._database.write() as db:
            if db.execute(delete(tokens).where(tokens.c.id == token_id)).rowcount == 0:
                raise TokenNotFoundError(f"there is no token with the id {token_id!r}; GET /v1/tokens lists them")

    def rotate_admin(self) -> str:
        """Replace the admin token in its file, and end every session that was opened with the old one."""
        token = secrets.token_urlsafe(32)
        write_private(self._admin_file, token + "\n")
        self._admin = digest(token)
        return token

    def open_session(self, token: str) -> str | None:
        """Return the secret of a new session that may do what the token may; None where the token opens nothing."""
        opened_by, session, now = digest(token), secrets.token_urlsafe(32), datetime.now(UTC)
        if self._owner(opened_by) is None:
            return None
        with self._database.write() as db:
            db.execute(delete(sessions).where(sessions.c.expires_at <= now))
            values = {"sha256": digest(session), "token_sha256": opened_by, "expires_at": now + SESSION}
            db.execute(insert(sessions).values(**values))
        return session

    def session_caller(self, session: str) -> Caller | None:
        """Return who opened a session; None where it is unknown, over, or its token opens nothing any more."""
        is_this = sessions.c.sha256 == digest(session)
        query = select(sessions.c.token_sha256).where(is_this, sessions.c.expires_at > datetime.now(UTC))
        with self._database.read() as db:
            opened_by = db.execute(query).scalar()
        return None if opened_by is None else self._owner(opened_by)

    def close_session(self, session: str) -> None:
        """End a session, if there is such a one."""
        with self._database.write() as db:
            db.execute(delete(sessions).where(sessions.c.sha256 == digest(session)))

    def _owner(self, sha256: str) -> Caller | None:
        if secrets.compare_digest(sha256, self._admin):
            return ADMIN
        query = select(tokens.c.owner, tokens.c.role)
        query = query.where(tokens.c.sha256 == sha256, tokens.c.expires_at > datetime.now(UTC))
        with self._database.read() as db:
            found = db.execute(query).one_or_none()
        return None if found is None else Caller(found.owner, Role(found.role))
