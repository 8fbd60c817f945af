"""``mpiflow drain`` and ``mpiflow stop``: tell a running job something, by way of its run directory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mpiflow.errors import RequestError
from mpiflow.monitor.requests import ask, wait_for_answer

if TYPE_CHECKING:
    from mpiflow.cli.arguments import Arguments

#: The commands: their names are those of the requests.
TOLD = ("drain", "stop")
#: Seconds that rank 0 has to answer. It looks once a second, and a call in C may keep it for some more.
ANSWER_WITHIN = 15.0


def tell(parsed: Arguments) -> int:
    """Make the request that the command stands for, and print what the run answers; the exit code.

    Parameters
    ----------
    parsed : Arguments
        The command line; what follows the command is the run directory.
    """
    if len(parsed.rest) != 1:
        print(
            f"mpiflow: {parsed.command} which run? Say `mpiflow {parsed.command} RUNDIR`: the directory of the run, or "
            "the one above (runinfo) for the newest run in it",
            file=sys.stderr,
        )
        return 2
    try:
        request = ask(parsed.rest[0], parsed.command)
        print(f"mpiflow: asked the run in {request.parent.parent} to {parsed.command}", flush=True)
        print(f"mpiflow: it says: {wait_for_answer(request, ANSWER_WITHIN)}", end="")
    except RequestError as error:
        print(f"mpiflow: {error}", file=sys.stderr)
        return 1
    return 0
