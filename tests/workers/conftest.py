"""What the tests of the workers share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty little stories of a few words."""
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    who, does = ("The cat", "A dog", "My aunt", "No one", "The sea"), ("sleeps", "runs home", "sees the moon", "waits")
    stories = [" ".join(f"{a} {b}." for a in who[i % 3 :] for b in does[: 2 + i % 3]) for i in range(40)]
    path.write_text("\n\n".join(stories))
    return path
