"""How a row is run: as an MPI job of two ranks of its own, under a time limit."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = Path(__file__).resolve().parent / "rows"
TIME_LIMIT = 120.0  # seconds for one row, which takes a few; a job that hangs must not hang the others


class JobFailedError(Exception):
    """A job ended without giving its figure; the text says how."""


@cache
def mpiexec() -> tuple[str, ...]:
    """The launcher of the interpreter's own MPI, with what it needs to run here; `MPIEXEC` overrides it."""
    if override := os.environ.get("MPIEXEC"):
        return tuple(shlex.split(override))
    beside = Path(sys.executable).with_name("mpiexec")
    program = str(beside) if beside.exists() else shutil.which("mpiexec")
    if program is None:
        raise SystemExit("no mpiexec beside the interpreter or in PATH; name one in MPIEXEC")
    if "Open MPI" not in mpi_version(program):
        return (program,)
    as_root = ("--allow-run-as-root",) if os.geteuid() == 0 else ()
    # As the rows of mpiflow are started: bound to a core each, which Open MPI does by itself, they would not compare.
    return (program, *as_root, "--oversubscribe", "--bind-to", "none", "--with-ft", "ulfm")


def mpi_version(program: str) -> str:
    """Which MPI a launcher belongs to, and the version, as it says itself."""
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    if hydra := re.search(r"HYDRA.*?Version:\s*(\S+)", text, re.DOTALL):
        return f"MPICH (hydra {hydra[1]})"
    return text.strip().splitlines()[0] if text.strip() else program


def plain_job(script: Path, args: Sequence[str]) -> list[str]:
    """The command for a script that is an MPI program by itself."""
    return [*mpiexec(), "-n", "2", sys.executable, str(script), *args]


def farm_job(script: Path, args: Sequence[str]) -> list[str]:
    """The command for a script that mpiflow runs: rank 0 has the script, rank 1 is the worker."""
    return [sys.executable, "-m", "mpiflow", "-n", "2", str(script), *args]


def environment() -> dict[str, str]:
    """The environment of a job: this checkout comes first, and modules are compiled once, as installed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    return env


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run a job to its end, in a directory of its own, and return what it printed.

    Raises
    ------
    JobFailedError
        If it exits with another code than 0 or has not ended at the time limit.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:  # for the run directory it makes
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env=environment() if env is None else env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            _end(process)
            raise JobFailedError(f"no end after {TIME_LIMIT:.0f} s") from None
        except KeyboardInterrupt:  # the job has a session of its own, so Ctrl-C has not reached it
            _end(process)
            raise
    if process.returncode != 0:
        last = (err.strip() or out.strip() or "no output").splitlines()[-1]
        raise JobFailedError(f"exit code {process.returncode}: {last}")
    return out


def _end(process: subprocess.Popen[str]) -> None:
    """End a job: politely first, so that the launcher can take its ranks with it."""
    with suppress(ProcessLookupError):  # it may just have ended by itself
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
