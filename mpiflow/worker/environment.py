"""The surroundings of a task: variables, directory, output, random numbers, signals.

Every task starts in the same directory with the same environment, whatever the one before it did. Looking
each time would cost a task of a microsecond half a microsecond, so `Surroundings` is told instead: the calls
by which Python code changes either are wrapped to leave a mark.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from mpiflow import linux
from mpiflow.comm.launcher import is_launcher_variable
from mpiflow.linux import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import TextIOWrapper
    from typing import Any, NoReturn

#: Variables that tell numerical libraries how many threads to start.
THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def forget_launcher() -> None:
    """Remove what the launcher told this process, so that a program started from here is no rank of ours.

    Left in place, a child that imports mpi4py would try to join the job: it fails on MPICH, and on Open MPI
    the whole job hangs.
    """
    for name in [name for name in os.environ if is_launcher_variable(name)]:
        del os.environ[name]


def enter(directory: str) -> None:
    """Go to the directory that the script was in when it loaded its Config; stay where that is not on this node."""
    try:
        os.chdir(directory)
    except OSError as error:
        words = f"mpiflow: tasks on {os.uname().nodename} run in {os.getcwd()}, for {directory} cannot be entered there"
        print(f"{words}: {error.strerror}", file=sys.stderr, flush=True)


def set_variables(variables: dict[str, str | None]) -> None:
    """Change this process's environment; None removes a variable."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value


def thread_counts(cores: int) -> dict[str, str]:
    """Thread counts for a runner with so many cores; what the user has set stays."""
    return {name: str(max(1, cores)) for name in THREAD_COUNTS if name not in os.environ}


def reseed() -> None:
    """Give a forked process random numbers of its own. The stdlib's ``random`` does so by itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def ignore_batch_signals() -> None:
    """Batch systems send their warnings to every process of a job; tasks, and what they exec, ignore them."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def close_inherited(keep: set[int]) -> None:
    """Close every descriptor above 2 that is not to be kept: the launcher's and MPI's are no task's."""
    for fd in linux.open_descriptors():
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the one that listed the directory


def leave_fork(code: object) -> NoReturn:
    """End a process that a task has forked and that has come back out of the task: its parent has the answer.

    Parameters
    ----------
    code : object
        As for ``sys.exit``.
    """
    with suppress(AttributeError, ValueError, OSError):  # its streams are its own affair
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


class StandardStreams:
    """Standard output and error as they were, put back after a task that closed or replaced them."""

    def __init__(self) -> None:
        self._saved = {fd: os.dup(fd) for fd in (1, 2)}
        self._redirected = False
        dup2 = self._dup2 = os.dup2

        def marked(fd: int, fd2: int, inheritable: bool = True) -> int:
            self._redirected = self._redirected or fd2 in (1, 2)
            return dup2(fd, fd2, inheritable)

        os.dup2 = marked
        self._open()

    def _open(self) -> None:
        self._stdout = sys.stdout = sys.__stdout__ = self._stream(1)  # type: ignore[misc]
        self._stderr = sys.stderr = sys.__stderr__ = self._stream(2)  # type: ignore[misc]

    def _stream(self, fd: int) -> TextIOWrapper:
        # standard error by lines, as everywhere: the last words of a task that dies must not be in a buffer
        lines = 1 if fd == 2 else -1
        return open(fd, "w", lines, encoding="utf-8", errors="backslashreplace", closefd=False)

    def settle(self) -> None:
        """Write out what is buffered, and put back what is not as it was."""
        replaced = sys.stdout is not self._stdout or sys.stderr is not self._stderr
        try:
            if replaced:
                sys.stdout.flush()
                sys.stderr.flush()
            self._stdout.flush()
            self._stderr.flush()
        except Exception:  # None, closed, or its descriptor is, or something odd in its place
            self.repair()
        if self._redirected:
            self._redirected = False
            self.repair()
        if replaced:
            sys.stdout, sys.stderr = self._stdout, self._stderr

    def repair(self) -> None:
        """Put descriptors and streams back."""
        for fd, saved in self._saved.items():
            self._dup2(saved, fd)
        self._open()


class Surroundings:
    """Directory, environment and signal handlers as they were, put back after a task that changed them.

    A process that ignores SIGTERM hands that down to its children: the next task's pool of processes, told to
    end, would never do so.
    """

    def __init__(self) -> None:
        self.remember()
        os.chdir = self._marking(os.chdir, "_moved")
        os.fchdir = self._marking(os.fchdir, "_moved")
        # os.environ itself calls these two, by these names
        os.putenv = self._marking(os.putenv, "_changed")
        os.unsetenv = self._marking(os.unsetenv, "_changed")
        self._timed = False
        signal.alarm = self._marking(signal.alarm, "_timed")
        signal.setitimer = self._marking(signal.setitimer, "_timed")
        #: Handlers that a task has replaced, by signal.
        self._handlers: dict[int, Any] = {}
        self._set_handler = set_handler = signal.signal

        def noted(number: int, handler: Any) -> Any:
            before = set_handler(number, handler)
            self._handlers.setdefault(int(number), before)
            return before

        signal.signal = noted  # type: ignore[assignment]

    def remember(self) -> None:
        """What is now is what tasks find from now on."""
        self._directory = os.getcwd()
        self._environment = dict(os.environ)
        self._moved = False
        self._changed = False

    def _marking(self, call: Callable[..., Any], mark: str) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:
            setattr(self, mark, True)
            return call(*args, **kwargs)

        return marked

    def restore(self) -> None:
        """Undo what the last task did; costs four attribute look-ups when it did nothing."""
        if self._moved:
            os.chdir(self._directory)
            self._moved = False
        if self._changed:
            for name in os.environ.keys() - self._environment.keys():
                del os.environ[name]
            for name, value in self._environment.items():
                if os.environ.get(name) != value:
                    os.environ[name] = value
            self._changed = False
        if self._timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._timed = False
        if self._handlers:
            for number, handler in self._handlers.items():
                self._set_handler(number, handler)
            self._handlers.clear()
