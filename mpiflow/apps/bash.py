"""Running the command of a bash_app, inside a runner."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

from mpiflow import context
from mpiflow.errors import (
    AppBadFormatting,
    AppException,
    AppTimeout,
    BadStdStreamFile,
    BashAppNoReturn,
    BashExitFailure,
    MissingOutputs,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Any

class BashCommand:
    """What a runner calls for a bash_app: the user's function makes the command line, bash runs it.

    Parameters
    ----------
    func : callable
        Returns the command line.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func = func
        self.name: str = getattr(func, "__name__", type(func).__name__)
        #: Whether the function has a place for ``walltime``, which is there for whoever runs the command.
        self.takes_walltime = True

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        """Make and run the command; 0, or an exception that says why not."""
        command = self._command_line(args, kwargs)
        exit_code = self._run(command, kwargs)
        if exit_code != 0:
            raise BashExitFailure(self.name, exit_code)
        missing = [file for file in kwargs.get("outputs", ()) if not os.path.exists(file)]
        if missing:
            raise MissingOutputs(f"Missing outputs from app {self.name}", missing)
        return exit_code

    def _command_line(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if not self.takes_walltime and "walltime" in kwargs:
            kwargs = {name: value for name, value in kwargs.items() if name != "walltime"}
        try:
            command = self.func(*args, **kwargs)
        except IndexError as error:
            words = f"App formatting failed for app {self.name!r} with IndexError: {error}"
            raise AppBadFormatting(words) from error
        except AttributeError as error:
            words = f"bash_app {self.name!r} made no command line, but AttributeError: {error}"
            raise BashAppNoReturn(words) from error
        if not isinstance(command, str):
            raise ValueError(f"Expected a str for bash_app commandline, got {type(command)}")
        return command

    def _run(self, command: str, kwargs: dict[str, Any]) -> int:
        import subprocess

        # A runner's walltime is watched by its worker, which kills the runner's group, with the command in it. In
        # a thread of rank 0 the command has to be a group of its own, and to be killed from here.
        limit = kwargs.get("walltime") if context.task_id < 0 else None
        with _opened(kwargs.get("stdout"), "stdout") as out, _opened(kwargs.get("stderr"), "stderr") as err:
            if err is not None:
                err.write(f"--> executable follows <--\n{command}\n--> end executable <--\n")
                err.flush()
            try:
                process = subprocess.Popen(
                    command,
                    shell=True,
                    executable="/bin/bash",
                    stdout=out,
                    stderr=err,
                    start_new_session=limit is not None,
                )
            except OSError as error:
                raise AppException(f"App {self.name} caught exception", error) from error
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise AppTimeout(f"App {self.name} exceeded walltime: {limit:g} seconds") from None
            except BaseException:  # its own walltime, in a rank: the command may not go on
                process.kill()
                process.wait()
                raise


@contextmanager
def _opened(specification: Any, which: str) -> Iterator[IO[str] | None]:
    """A file for standard output or error of a command: a path, appended to, or (path, mode); None is none."""
    if specification is None:
        yield None
        return
    path, mode = specification, getattr(specification, "open_mode", "a+")  # a File is written anew
    if isinstance(specification, tuple):
        if len(specification) != 2:
            raise BadStdStreamFile(f"{which} is {specification!r}: a tuple is (path, mode)")
        path, mode = specification
    try:
        if directory := os.path.dirname(os.fspath(path)):
            os.makedirs(directory, exist_ok=True)
        file = open(path, mode)  # noqa: SIM115, its own try: what the command raises is another matter
    except (OSError, TypeError, ValueError) as error:
        raise BadStdStreamFile(f"{which}: {path!s}: {error}") from error
    with file:
        yield file
