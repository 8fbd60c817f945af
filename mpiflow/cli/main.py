"""The command ``mpiflow`` where no launcher has started it."""

from __future__ import annotations

import sys

from mpiflow.cli.arguments import parse, script_arguments
from mpiflow.cli.tell import TOLD, tell


def main(arguments: list[str]) -> int:
    """Run a subcommand, or start a job for a script.

    Parameters
    ----------
    arguments : list of str
        The command line after the command's own name.
    """
    if arguments[:1] == ["supervise"]:
        from mpiflow.cli.supervise import supervise

        return supervise(arguments[1:])
    parsed = parse(arguments)
    if parsed.command == "doctor":
        if parsed.size is None:
            from mpiflow.cli.doctor import examine_alone

            return examine_alone(parsed)
        return _launch(parsed.size, arguments)
    if parsed.command in TOLD:
        return tell(parsed)
    if problem := script_arguments(parsed):
        print(f"mpiflow: {problem}", file=sys.stderr)
        return 2
    if parsed.size == 1:
        from mpiflow.cli.rank0 import run_alone

        return run_alone(parsed)
    return _launch(parsed.size, arguments)


def _launch(size: int | None, arguments: list[str]) -> int:
    from mpiflow.cli.launch import LauncherNotFound, launch

    command = [sys.executable, "-m", "mpiflow", *arguments]
    try:
        return launch(command, size)
    except LauncherNotFound as error:
        print(f"mpiflow: {error}", file=sys.stderr)
        return 2
