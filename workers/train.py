"""`python -m workers.train FILE`: one training without a server and without Ray, the same loop.

Started by torchrun it is one rank of many; started alone it is the only one. torchrun takes `--run` for its own option
`--run-path` unless two dashes stand before the program:
`torchrun --nproc-per-node 2 -m -- workers.train FILE --run DIR`.
"""

import io
import sys
from collections.abc import Sequence

from .training.safety.signals import InterruptedBeforeTrainingError, stop_on_signals


def main(command_line: Sequence[str] | None = None) -> int:
    """Train the job that the command line names, this process's own where none is given; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a character of a name or a message
            stream.reconfigure(errors="backslashreplace")
    with stop_on_signals() as stop:
        try:
            from .training.alone import run  # it loads torch, for seconds in which there may be a Ctrl-C

            return run(command_line, stop)
        except InterruptedBeforeTrainingError as interruption:
            sys.stderr.write(f"ended by {interruption} before the first step\n")
            return stop.exit_code


if __name__ == "__main__":
    sys.exit(main())
