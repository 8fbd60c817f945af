"""``python -m tests.chaos``: the long form."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .campaign import campaign
from .faults import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=300, help="how many to inject (default 300)")
    parser.add_argument("--seed", type=int, default=1, help="all of it follows from this (default 1)")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks of a run (default 2000)")
    parser.add_argument("--only", default="", help=f"names of faults, with commas between: {', '.join(FAULTS)}")
    parser.add_argument("--keep", type=Path, help="an empty directory for runs that fail (default: below /tmp)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a life is ended with the suite
    table = campaign(
        seed=given.seed,
        most=given.faults,
        tasks=given.tasks,
        only=[name for name in given.only.split(",") if name],
        keep=given.keep,
        say=lambda words: print(words, flush=True),
    )
    print(f"\n{table}")
    return 1 if table.failures else 0


if __name__ == "__main__":
    sys.exit(main())
