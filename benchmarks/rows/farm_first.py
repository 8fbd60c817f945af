"""Job of `benchmarks.footprint`: one task in a runner, which tries to open the file named as argument.

There is no such file: the attempt is the mark in the log of opened files that says the first function runs.
"""

from __future__ import annotations

import contextlib
import sys

import mpiflow
from mpiflow import python_app


@python_app
def first(mark: str) -> None:
    """Leave the mark."""
    with contextlib.suppress(FileNotFoundError), open(mark):
        pass


if __name__ == "__main__":
    mpiflow.load()
    first(sys.argv[1]).result()
