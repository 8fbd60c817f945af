"""``mpiflow cancel``: end jobs."""

from __future__ import annotations

import argparse
import sys

from mpiflow.errors import BatchSystemError, ConfigurationError
from mpiflow.jobs.job import find


def cancel(arguments: list[str]) -> int:
    """Run the subcommand; returns its exit code.

    Parameters
    ----------
    arguments : list of str
        The command line after the word ``cancel``.
    """
    parser = argparse.ArgumentParser(
        prog="mpiflow cancel", description="End jobs; what is in their journals is kept. Links of a chain end too."
    )
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="id or directory of a job")
    parser.add_argument(
        "--system", default="", metavar="NAME", help="the batch system of ids that mpiflow did not submit"
    )
    said = parser.parse_args(arguments)
    code = 0
    for text in said.jobs:
        try:
            left = find(text, said.system).cancel()
        except ConfigurationError as error:
            print(f"mpiflow cancel: {error}", file=sys.stderr)
            code = max(code, 2)
        except BatchSystemError as error:
            print(f"mpiflow cancel: job {text} is not ended: {error}", file=sys.stderr)
            code = max(code, 1)
        else:
            print(f"mpiflow: job {text} {'is told to end' if left else 'has ended before'}")
    return code
