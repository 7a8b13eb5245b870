"""`python -m workers.torchrun N FILE`: N ranks of `workers.train` on this machine.

torchrun starts them. What it would show as a traceback is an exit code here: a signal, also while it is being imported,
and a rank that failed and has said why.
"""

import signal
import sys
from collections.abc import Sequence


def main(command_line: Sequence[str]) -> int:
    """Train on as many ranks as the first argument says, with the others as arguments; return the exit code."""
    workers, *arguments = command_line
    # The -- keeps torchrun from reading --run as the beginning of an option of its own.
    where = ["--rdzv-backend", "loopback", "--rdzv-endpoint", "127.0.0.1"]
    options = [*where, "--nproc-per-node", workers, "-m", "--", "workers.train", *arguments]
    try:
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import main as torchrun

        from .loopback import offer
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    offer()
    try:
        torchrun(options)
    except SignalException as told:
        return 128 + told.sigval
    except KeyboardInterrupt:  # before torchrun heeds signals by itself
        return 128 + signal.SIGINT
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
