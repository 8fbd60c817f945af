"""The command ``mpiflow`` where no launcher has started it."""

from __future__ import annotations

import sys

from mpiflow.cli.arguments import parse, script_arguments
from mpiflow.cli.tell import TOLD, tell

#: Commands about jobs in a batch system; each has options of its own.
JOB_COMMANDS = ("submit", "status", "logs", "cancel", "jobs", "machines")


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
    if arguments[:1] == ["report"]:
        from mpiflow.cli.report import report

        return report(arguments[1:])
    if arguments and arguments[0] in JOB_COMMANDS:
        return _about_jobs(arguments[0], arguments[1:])
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


def _about_jobs(command: str, arguments: list[str]) -> int:
    if command == "submit":
        from mpiflow.cli.submit import submit

        return submit(arguments)
    if command == "logs":
        from mpiflow.cli.logs import logs

        return logs(arguments)
    if command == "cancel":
        from mpiflow.cli.cancel import cancel

        return cancel(arguments)
    if command == "machines":
        from mpiflow.cli.machines import machines

        return machines(arguments)
    from mpiflow.cli.status import jobs, status

    return status(arguments) if command == "status" else jobs(arguments)


def _launch(size: int | None, arguments: list[str]) -> int:
    from mpiflow.cli.launch import LauncherNotFound, launch

    command = [sys.executable, "-m", "mpiflow", *arguments]
    try:
        return launch(command, size)
    except LauncherNotFound as error:
        print(f"mpiflow: {error}", file=sys.stderr)
        return 2
