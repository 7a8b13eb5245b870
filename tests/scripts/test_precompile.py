"""That the modules which are compiled at set-up are those that jobs and server load."""

import importlib.util
import re
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "precompile"


def test_what_it_imports_are_modules_and_not_packages_which_load_nothing() -> None:
    names = [name for line in re.findall(r"'import ([^;']+)", SCRIPT.read_text()) for name in line.split(", ")]
    ours = [name for name in names if name.startswith(("workers.", "server."))]
    assert {"workers.training.loop", "workers.launch", "server.http.serve"} <= set(ours)
    for name in ours:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is None, (
            f"{name} is a package, and importing it loads none of its modules"
        )
