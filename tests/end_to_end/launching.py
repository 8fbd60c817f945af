"""Start real jobs: with the mpiexec of the interpreter that runs the tests, and with a time limit that kills.

Every process of a job carries a mark in its environment. The kernel keeps the environment a process was
started with (``/proc/PID/environ``), whatever the process does to its own later, and a forked process keeps
its parent's; so whatever a job leaves behind can be found, told apart from everything else on the machine,
and killed by its number.

Standard output and error go to files: a pipe would be kept open by the very leftovers that a test looks for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Form = Literal["mpiexec", "own", "lone", "plain"]

MARK = "FARM_TEST_MARK"
#: What a launcher tells its ranks, by prefix; none of it may come from the shell that runs the tests.
LAUNCHERS_OWN = ("PMI_", "PMI2_", "PMIX_", "OMPI_", "PRTE_", "OPAL_", "HYDRA_", "HYDI_", "MPI_LOCAL", "PALS_")
#: What prterun, the launcher of Open MPI, says of its own connection to a process that has died: it may be just about
#: to send something there. By its pid it is prterun's; no rank has a descriptor of such a number.
OF_THE_DEAD = re.compile(
    r"^\[warn\] Epoll MOD\(\d+\) on fd \d+ failed\. .*: Bad file descriptor\n"
    r"|^\[[^\]]+:\d+\] pmix_ptl_base: send_msg: write failed: (Connection reset by peer|Broken pipe) .*\n",
    re.MULTILINE,
)
#: Variables that a test sets itself where it wants them.
NOT_INHERITED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MPIFLOW_")


class Mpiexec(NamedTuple):
    """A launcher, whose it is, and what it needs to start more ranks than cores, as any user."""

    path: str
    flavour: str
    flags: tuple[str, ...]

    def line(self, ranks: int) -> list[str]:
        """The command line up to the program."""
        return [self.path, *self.flags, "-n", str(ranks)]


@functools.cache
def mpiexec_of(directory: str) -> Mpiexec | None:
    """The mpiexec in a directory; None where there is none, or none that is known."""
    path = shutil.which("mpiexec", path=directory)
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    if found := re.search(r"\(Open MPI\)\s+v?(\d+)", said):
        flags = ["--oversubscribe", "--bind-to", "none"]
        flags += ["--with-ft", "ulfm"] if int(found[1]) >= 5 else []
        flags += ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return Mpiexec(path, "openmpi", tuple(flags))
    return Mpiexec(path, "hydra", ()) if "HYDRA" in said else None


def our_mpiexec() -> Mpiexec | None:
    """The launcher that fits this interpreter's mpi4py: the one beside it, else the first on PATH."""
    return mpiexec_of(os.path.dirname(sys.executable)) or mpiexec_of(os.environ.get("PATH", ""))


class Ended(NamedTuple):
    """How a job ended.

    Attributes
    ----------
    code : int
        Exit code; minus the number of a signal.
    out, err : str
        What it printed.
    seconds : float
        From its start to its end.
    """

    code: int
    out: str
    err: str
    seconds: float

    def well(self) -> str:
        """What it printed, once it is sure that it ended with 0 and had nothing to complain of."""
        assert (self.code, self.err) == (0, ""), str(self)
        return self.out

    def failed(self, code: int) -> str:
        """What it wrote to standard error, once it is sure that it ended with this code."""
        assert self.code == code, str(self)
        return self.err

    def __str__(self) -> str:
        return (
            f"exit code {self.code} after {self.seconds:.1f} s\n--- stdout\n{_ends_of(self.out)}"
            f"\n--- stderr\n{_ends_of(self.err)}"
        )


class Running:
    """A job that has been started.

    Parameters
    ----------
    process : Popen
        The first process of it.
    out, err : Path
        Files that it writes to.
    jobs : Jobs
        Who started it.
    """

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path, jobs: Jobs) -> None:
        self.process = process
        self._out = out
        self._err = err
        self._jobs = jobs
        self._began = time.monotonic()

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._err.read_text("utf-8", "replace")

    def shows(self, text: str, limit: float = 30.0) -> Running:
        """Wait until it has printed this."""
        end = time.monotonic() + limit
        while text not in self.out:
            ended = self.process.poll()
            if ended is not None or time.monotonic() > end:
                self._jobs.kill_all()
                words = f"ended with {ended}" if ended is not None else f"went on for {limit:g} s"
                raise AssertionError(f"the job {words} without printing {text!r}\n{self._state(ended)}")
            time.sleep(0.01)
        return self

    def wait(self, limit: float = 40.0) -> Ended:
        """Wait for its end; a job that takes longer is killed, and the test fails."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            processes = "\n".join(self._jobs.left_behind())
            self._jobs.kill_all()
            state = self._state(None)
            raise AssertionError(f"the job hangs: it has not ended within {limit:g} s\n{state}\n{processes}") from None
        return self._state(code)

    def _state(self, code: int | None) -> Ended:
        return Ended(-999 if code is None else code, self.out, self.err, time.monotonic() - self._began)


class Jobs:
    """Starts jobs in a directory of their own and finds what they leave behind.

    Parameters
    ----------
    directory : Path
        Where scripts are written, and where jobs run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._mark = uuid.uuid4().hex
        # Open MPI's launcher names its directory of sockets by its process id, and one that is killed leaves it
        # behind: among many jobs another launcher gets that id one day, and cannot start. A short path, since a
        # socket's has room for 107 characters.
        self._temporary = tempfile.mkdtemp(prefix="jobs-", dir="/tmp")
        self._started: list[Running] = []

    # --- starting -----------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> Path:
        """A file in the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def run(self, script: str, *args: str, limit: float = 40.0, **how: Any) -> Ended:
        """Start a script, see `start`, and wait for its end."""
        return self.start(script, *args, **how).wait(limit)

    def start(
        self,
        script: str,
        *args: str,
        form: Form = "mpiexec",
        ranks: int = 3,
        options: Sequence[str] = (),
        **how: Any,
    ) -> Running:
        """Start a script.

        Parameters
        ----------
        script : str
            The text of a script, or its name where it is there already.
        *args : str
            Its arguments.
        form : {"mpiexec", "own", "lone", "plain"}
            By which command; "own" is ``python -m mpiflow -n RANKS``, "lone" the same with one rank.
        ranks : int
            Rank 0 included.
        options : sequence of str
            Of mpiflow.
        **how
            As for `command`.
        """
        name = str(self.write("script.py", script)) if "\n" in script else script
        return self.command(self.line(form, ranks, [*options, name, *args]), **how)

    def line(self, form: Form, ranks: int, arguments: Sequence[str]) -> list[str]:
        """The command line that a form of starting stands for."""
        mpiflow = [sys.executable, "-m", "mpiflow"]
        if form == "mpiexec":
            launcher = our_mpiexec()
            assert launcher is not None, "a test without the `launcher` fixture has asked for mpiexec"
            return [*launcher.line(ranks), *mpiflow, *arguments]
        if form == "own":
            return [*mpiflow, "-n", str(ranks), *arguments]
        if form == "lone":
            return [*mpiflow, "-n", "1", *arguments]
        return [sys.executable, *arguments]

    def command(
        self,
        line: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        terminal: int | None = None,
    ) -> Running:
        """Start any command.

        Parameters
        ----------
        line : sequence of str
            The command line.
        env : mapping, optional
            Variables besides those of this process.
        cwd : Path, optional
            Where it runs; default: the directory of these jobs.
        stdin : bytes
            What it reads.
        terminal : int, optional
            Descriptor of a terminal that becomes its controlling one, and its standard input.
        """
        number = len(self._started)
        out, err = self.directory / f"stdout.{number}", self.directory / f"stderr.{number}"
        typed = self.directory / f"stdin.{number}"
        typed.write_bytes(stdin)
        with open(out, "wb") as to, open(err, "wb") as errors, open(typed, "rb") as source:
            process = subprocess.Popen(
                line,
                stdin=source if terminal is None else terminal,
                stdout=to,
                stderr=errors,
                cwd=cwd or self.directory,
                env={**inherited(), "TMPDIR": self._temporary, **(env or {}), MARK: self._mark},
                start_new_session=True,
                preexec_fn=None if terminal is None else functools.partial(_take_terminal, terminal),
            )
        running = Running(process, out, err, self)
        self._started.append(running)
        return running

    # --- what is left ---------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Every process that carries the mark of these jobs."""
        mark = f"{MARK}={self._mark}".encode()
        found: list[int] = []
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                    if mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found

    def left_behind(self, within: float = 0.0) -> list[str]:
        """Processes that are still there after so many seconds, in words."""
        end = time.monotonic() + within
        while pids := self.pids():
            if time.monotonic() >= end:
                return [f"{pid}: {_command_of(pid)}" for pid in pids]
            time.sleep(0.02)
        return []

    def kill_all(self) -> None:
        """End every process of these jobs: a launcher first gets the chance to tidy up after itself."""
        for running in self._started:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(1.0)
        end = time.monotonic() + 10.0
        while (pids := self.pids()) and time.monotonic() < end:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for running in self._started:
            running.process.wait(10.0)
        shutil.rmtree(self._temporary, ignore_errors=True)


def inherited() -> dict[str, str]:
    """This process's environment, without what a launcher or a shell's start-up file may have put there."""
    return {name: value for name, value in os.environ.items() if not name.startswith((*LAUNCHERS_OWN, *NOT_INHERITED))}


def _take_terminal(descriptor: int) -> None:
    """Make a terminal the controlling one of this new session, as a shell's job has it."""
    import fcntl
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return "(ended)"


def _ends_of(text: str, most: int = 6000) -> str:
    """A long text without its middle."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n… {len(text) - most:,} characters …\n{text[-most // 2 :]}"
