import json

import httpx
import pytest

from tests.server.cli.command import run_bigbatch
from tests.serving import Served


@pytest.mark.parametrize("command", ["create", "list", "revoke", "rotate", "link"])
def test_the_help_of_every_command_about_tokens_shows_an_example_and_json(command: str) -> None:
    result = run_bigbatch("token", command, "--help")
    assert result.exit_code == 0
    assert f"Example: bigbatch token {command}" in result.output
    assert "--json" in result.output


def test_a_token_is_made_used_listed_and_revoked(served: Served, home: list[str]) -> None:
    made = run_bigbatch("token", "create", "ada", "--role", "reader", "--days", "30", *home)
    token = made.stdout.strip()
    assert ("ada, reader, until" in made.stderr, token.startswith("bigbatch_")) == (True, True)
    assert run_bigbatch("jobs", "--token", token, "--url", served.url).exit_code == 0
    refused = run_bigbatch("token", "list", "--token", token, "--url", served.url)
    assert (refused.exit_code, "needs a token with the role admin" in refused.stderr) == (2, True)
    (listed,) = json.loads(run_bigbatch("token", "list", "--json", *home).stdout)
    assert (listed["owner"], token in str(listed)) == ("ada", False)
    assert listed["id"] in run_bigbatch("token", "list", *home).stdout
    assert "is revoked" in run_bigbatch("token", "revoke", listed["id"], *home).stdout
    gone = run_bigbatch("jobs", "--token", token, "--url", served.url)
    assert (gone.exit_code, "does not accept the token" in gone.stderr) == (2, True)
    assert "There is only the admin token" in run_bigbatch("token", "list", *home).stdout
    again = run_bigbatch("token", "revoke", listed["id"], *home)
    assert (again.exit_code, "there is no token" in again.stderr) == (2, True)


def test_the_admin_token_is_replaced_and_found_again_by_the_home_folder(served: Served, home: list[str]) -> None:
    old = served.token
    new = run_bigbatch("token", "rotate", *home).stdout.strip()
    assert served.token == new != old
    assert run_bigbatch("jobs", *home).exit_code == 0
    answer = httpx.get(f"{served.url}/v1/jobs", headers={"Authorization": f"Bearer {old}"}, trust_env=False)
    assert answer.status_code == 401


def test_a_link_logs_a_browser_in(served: Served, home: list[str]) -> None:
    link = run_bigbatch("token", "link", *home).stdout.strip()
    assert link == f"{served.url}/?token={served.token}"
    assert httpx.get(link, trust_env=False).status_code == 303
    assert json.loads(run_bigbatch("token", "link", "--json", *home).stdout) == {"dashboard": link}


def test_who_changed_what_is_listed(served: Served, home: list[str]) -> None:
    assert "Nothing was changed yet" in run_bigbatch("audit", *home).stdout
    job_id = served.submit()["id"]
    run_bigbatch("token", "create", "ada", *home)
    table = run_bigbatch("audit", *home).stdout
    assert "POST /v1/jobs" in table
    assert "POST /v1/tokens" in table
    (deed,) = json.loads(run_bigbatch("audit", job_id, "--json", *home).stdout)
    assert (deed["caller"], deed["status"]) == ("admin", 201)
    assert "Example: bigbatch audit" in run_bigbatch("audit", "--help").output
