"""``python -m mpiflow``: as a rank of a job, or as the command that starts one."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Take the command line; returns the exit code.

    A process that a launcher has started is a rank. It goes to `cli.boot` before anything else is
    imported: on all ranks but one nothing else ever is.
    """
    if sys.argv[1:2] == ["stage"]:  # it has ranks of its own kind, and runs where no farm could
        from mpiflow.cli.stage import stage

        return stage(sys.argv[2:])
    from mpiflow.comm.launcher import said

    if said(os.environ) is not None:
        from mpiflow.cli.boot import start_rank

        return start_rank(sys.argv[1:])
    from mpiflow.cli.main import main as command

    code = command(sys.argv[1:])
    import signal

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a warning is too late now, and may not take the code's place
    return code


if __name__ == "__main__":
    sys.exit(main())
