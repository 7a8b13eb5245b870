import pytest

from server.callers import Role


@pytest.mark.parametrize(
    ("role", "reads", "changes", "administers"),
    [
        (Role.ADMIN, True, True, True),
        (Role.OPERATOR, True, True, False),
        (Role.READER, True, False, False),
        (Role.JOB, False, False, False),
    ],
)
def test_each_role_allows_what_the_one_below_it_does_and_more(
    role: Role, reads: bool, changes: bool, administers: bool
) -> None:
    assert all(role.allows(method, of_administration=False) is reads for method in ("GET", "HEAD"))
    assert all(role.allows(method, of_administration=False) is changes for method in ("POST", "PATCH", "DELETE"))
    assert all(role.allows(method, of_administration=True) is administers for method in ("GET", "POST", "DELETE"))
