"""The command ``mpiflow`` where no launcher has started it."""

from __future__ import annotations

import sys

from mpiflow.cli.arguments import parse, script_arguments


def main(arguments: list[str]) -> int:
    """Run a subcommand, or start a job for a script.

    Parameters
    ----------
    arguments : list of str
        The command line after the command's own name.
    """
    parsed = parse(arguments)
    if parsed.command == "doctor":
        if parsed.size is None:
            from mpiflow.cli.doctor import examine_alone

            return examine_alone(parsed)
        return _launch(parsed.size, arguments)
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
