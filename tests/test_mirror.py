"""Every module has its tests where a reader looks for them: `tests/X/test_Y.py` for `X/Y.py`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]

ELSEWHERE = {
    "server/cluster/protocol.py": "server/cluster/test_ray_jobs.py",
    "server/http/context.py": "server/http/routes/test_jobs.py",
    "server/storage/faults.py": "server/storage/test_database.py",
    "workers/checkpoints/errors.py": "workers/checkpoints/test_load.py",
    "workers/contract/spec/export.py": "workers/training/test_export_at_end.py",
    "workers/contract/spec/start_from.py": "workers/training/test_branches.py",
    "workers/contract/text_files.py": "workers/contract/test_sources.py",
    "workers/corpus/reading/tables.py": "workers/corpus/reading/test_text.py",
    "workers/corpus/work/pool.py": "workers/corpus/test_build.py",
    "workers/corpus/work/process.py": "workers/corpus/test_build.py",
    "workers/corpus/work/tasks.py": "workers/corpus/test_build.py",
    "workers/corpus/rows/borders.py": "workers/corpus/rows/test_index.py",
    "workers/training/alone.py": "workers/test_train.py",
}
"""Modules of types alone, or that mean something only together with others, and the tests that use them."""


def _namesake(module: Path) -> Path:
    return ROOT / "tests" / module.parent / f"test_{module.stem.strip('_')}.py"


def _modules() -> set[Path]:
    found = (
        path.relative_to(ROOT) for package in ("optim", "workers", "server") for path in (ROOT / package).rglob("*.py")
    )
    return {module for module in found if module.name != "__init__.py" and "migrations" not in module.parts}


def test_every_module_has_a_namesake_among_the_tests_or_is_listed_here_with_the_tests_that_cover_it() -> None:
    without = {str(module) for module in _modules() if not _namesake(module).is_file()}
    assert sorted(without - ELSEWHERE.keys()) == [], "write tests for these in tests/, by the same path and name"
    assert sorted(ELSEWHERE.keys() - without) == [], "these are listed above and need not be"


def test_what_is_listed_here_is_covered_by_tests_that_there_are() -> None:
    assert [file for file in ELSEWHERE.values() if not (ROOT / "tests" / file).is_file()] == []
