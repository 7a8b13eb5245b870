"""What the application adds to every answer."""

import stat

from tests.serving import Served


def test_every_answer_forbids_scripts_of_others(served: Served) -> None:
    for path in ("/", "/healthz", "/v1/jobs", "/v1/nothing", "/static/pages/app.js"):
        policy = served.http.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


def test_other_users_of_the_machine_read_nothing_in_the_home(served: Served) -> None:
    served.submit()
    files = [served.settings.home, *served.settings.home.glob("bigbatch.db*")]
    assert len(files) == 4  # the write-ahead log and its index, too
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files)
