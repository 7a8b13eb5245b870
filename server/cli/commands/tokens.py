"""The commands about who may do what: token create, list, revoke, rotate and link, and audit."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import Home, Json, Token, Url

if TYPE_CHECKING:
    from server.client import Client

token = typer.Typer(no_args_is_help=True)


class GivenRole(StrEnum):
    """The roles that a token can be made with."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


def group() -> None:
    """Make, list and revoke tokens, each with an owner, a role and an end."""


@token.command()
def create(
    owner: Annotated[str, typer.Argument(help="Who gets it: a name, which jobs and the audit log then show.")],
    *,
    role: Annotated[
        GivenRole, typer.Option(help="reader: reads. operator: also submits and changes jobs. admin: everything.")
    ] = GivenRole.OPERATOR,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days after which it opens nothing any more.")] = 90,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Make a token for somebody and print it. It is not stored: nobody can print it again.

    Example: bigbatch token create ada --role operator --days 30
    """
    from server.cli.output.tables import print_json

    with _client(home, url, token) as client:
        made = client.create_token(owner, role, days)
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['id']}: {made['owner']}, {made['role']}, until {made['expires_at'][:10]}", err=True)
    typer.echo(made["token"])


@token.command("list")
def list_tokens(*, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """List the tokens that were made and not revoked.

    Example: bigbatch token list
    """
    from server.cli.output.tables import print_json, screen, tokens_table

    with _client(home, url, token) as client:
        found = client.tokens()
    if as_json:
        print_json(found)
    elif found:
        screen().print(tokens_table(found))
    else:
        typer.echo("There is only the admin token. Make another one with: bigbatch token create OWNER")


@token.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="The id of the token, which `bigbatch token list` shows.")],
    *,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Have a token open nothing from now on, and log out browsers that logged in with it.

    Example: bigbatch token revoke 3f1c09ab77de
    """
    from server.cli.output.tables import print_json

    with _client(home, url, token) as client:
        client.revoke_token(token_id)
    if as_json:
        print_json({"id": token_id})
    else:
        typer.echo(f"{token_id} is revoked")


@token.command()
def rotate(*, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Replace the admin token, and log out browsers that used the old one. Running jobs are not affected.

    Example: bigbatch token rotate
    """
    from server.cli.output.tables import print_json

    with _client(home, url, token) as client:
        made = client.rotate_admin_token()
        where = client.url
    if as_json:
        print_json(made)
        return
    typer.echo(f"the new admin token of {where}, which is also in admin.token in its home folder:", err=True)
    typer.echo(made["token"])


@token.command()
def link(*, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Print a link that logs a browser in; it is as secret as the token that is in it.

    Example: bigbatch token link
    """
    from server.cli.output.tables import print_json

    with _client(home, url, token) as client:
        found = client.link()
    if as_json:
        print_json({"dashboard": found})
    else:
        typer.echo(found)


def audit(
    job_id: Annotated[str | None, typer.Argument(help="Only requests about this job; its whole id.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list at most, the newest first.")] = 100,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """List who changed what, the newest first.

    Example: bigbatch audit --limit 20
    """
    from server.cli.output.tables import deeds_table, print_json, screen

    with _client(home, url, token) as client:
        found = client.audit(job_id, limit)
    if as_json:
        print_json(found)
    elif found:
        screen().print(deeds_table(found))
    else:
        typer.echo("Nothing was changed yet.")


def _client(home: Path, url: str | None, token: str | None) -> "Client":
    from server.client import Client

    return Client(home, url, token)
