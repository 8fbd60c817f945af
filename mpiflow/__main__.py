"""``python -m mpiflow``: as a rank of a job, or as the command that starts one."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Take the command line; returns the exit code.

    A process that a launcher has started is a rank. It goes to `cli.boot` before anything else is
    imported: on all ranks but one nothing else ever is.
    """
    from mpiflow.comm.launcher import said

    if said(os.environ) is not None:
        from mpiflow.cli.boot import start_rank

        return start_rank(sys.argv[1:])
    from mpiflow.cli.main import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
