"""What `bigbatch` runs: the command line, or the way to it where only the library is installed."""

import sys
from collections.abc import Iterator

INTERRUPTED = 130


def main() -> None:
    """Run the command line; exit with 2 and the remedy where the extra `service` is not installed."""
    try:
        from .cli.app import main as run

        run()
    except KeyboardInterrupt:  # while the imports went on; each command has its own word for later
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError:
        missing = ", ".join(_missing())
        if not missing:
            raise
        sys.stderr.write(f"bigbatch: the command line needs what is not installed here: {missing}\n")
        sys.stderr.write("Install it with: pip install 'bigbatch[service]'\n")
        sys.exit(2)


def _missing() -> Iterator[str]:
    """Yield the distributions that bigbatch with its extra requires and this Python lacks."""
    import re
    from importlib.metadata import PackageNotFoundError, distribution, requires

    for requirement in requires("bigbatch") or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            distribution(name)
        except PackageNotFoundError:
            yield name


if __name__ == "__main__":
    main()
