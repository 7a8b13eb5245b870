"""What only admins may ask for: tokens made, listed, revoked and replaced, and the audit log."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from server.callers import ADMIN, Role
from server.errors import ParameterError
from server.http.bodies import read_model
from server.http.context import Asking, ServerParts
from server.storage.audit import Deed
from server.storage.tokens import Token
from workers.contract.fields import MOST
from workers.contract.problems import Problem

router = APIRouter(prefix="/v1", tags=["administration"])

_OWNER = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$"


class NewToken(BaseModel):
    """What a token is made from."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    owner: Annotated[str, Field(max_length=100, pattern=_OWNER)]
    """Who gets it: a name in letters, digits and . _ @ + -, which jobs and the audit log then show."""
    role: Literal["admin", "operator", "reader"]
    """A reader reads; an operator also submits and changes jobs; an admin also makes tokens and reads the audit log."""
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=3650)] = 90
    """Days after which it opens nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeToken(Token):
    """A new token."""

    token: str
    """The token itself. It is not stored, and is never shown again."""


class TokenList(BaseModel):
    """All tokens that were made and not revoked."""

    tokens: list[Token]


class AdminToken(BaseModel):
    """The new admin token."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    token: str
    """It is in the file admin.token in the server's home folder, too."""


class DeedPage(BaseModel):
    """One page of the audit log."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    deeds: list[Deed]
    next_before: int | None
    """`before` of the next page; null on the last one."""


_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": NewToken.model_json_schema()}}}
}


@router.post("/tokens", status_code=201, openapi_extra=_BODY)
async def create_token(request: Request, server: ServerParts, caller: Asking) -> MadeToken:
    """Make a token for somebody. The answer is the only place where it can be read."""
    asked = await read_model(request, NewToken)
    if asked.owner == ADMIN.name:
        taken = Problem("owner", repr(asked.owner), "is the name of whoever has admin.token", "choose another name")
        raise ParameterError(str(taken), [taken])
    lifetime = timedelta(days=asked.expires_in_days)
    made, token = await run_in_threadpool(server.tokens.create, asked.owner, Role(asked.role), lifetime, caller.name)
    return MadeToken(
        id=made.id,
        owner=made.owner,
        role=made.role,
        created_at=made.created_at,
        created_by=made.created_by,
        expires_at=made.expires_at,
        token=token,
    )


@router.get("/tokens")
def list_tokens(server: ServerParts) -> TokenList:
    """List the tokens that were made and not revoked, the newest first; those that have expired are among them."""
    return TokenList(tokens=server.tokens.all())


@router.delete("/tokens/{token_id}", status_code=204, response_class=Response)
def revoke_token(
    token_id: Annotated[str, Path(description="The id of a token, which its list has.")], server: ServerParts
) -> None:
    """Revoke a token. It opens nothing from now on; browsers that logged in with it are logged out."""
    server.tokens.revoke(token_id)


@router.post("/tokens/rotate-admin")
def rotate_admin_token(server: ServerParts) -> AdminToken:
    """Replace the token in admin.token. The old one opens nothing from now on, and its browsers are logged out.

    Running jobs are not affected: each has a token of its own.
    """
    return AdminToken(token=server.tokens.rotate_admin())


@router.get("/audit")
def audit_log(
    server: ServerParts,
    job_id: Annotated[str | None, Query(max_length=32, description="Only requests about this job.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Entries at most.")] = 100,
    before: Annotated[int | None, Query(ge=1, le=MOST, description="`next_before` of the page before.")] = None,
) -> DeedPage:
    """Read who changed what, the newest first: each request that changes something, and how it was answered.

    Requests without a valid token are not in it, and neither are the pushes of runs.
    """
    deeds = server.audit.page(limit + 1, before, job_id)
    return DeedPage(deeds=deeds[:limit], next_before=deeds[limit - 1].seq if len(deeds) > limit else None)
