"""Real batch systems on this machine, one for each session that asks, and jobs in them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
#: Beside those of the shell: where Debian puts daemons.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
#: What launchers and batch systems tell a process; none of it may come from the shell that runs the tests.
LAUNCHERS_OWN = ("PMI", "OMPI_", "PRTE_", "HYDRA_", "HYDI_", "MPI_LOCAL", "SLURM_", "SGE_", "MPIFLOW_")


class NotHere(Exception):
    """A batch system cannot be had on this machine, and why not."""


class BatchSystem:
    """A batch system of its own, in a directory of its own.

    Parameters
    ----------
    name : str
        "slurm" or "sge": the scripts beside this file begin with it.
    programs : list of str
        What has to be installed.
    ports : list of str
        Variables by which the script is told free ports.
    settings : dict, optional
        More variables for the script.
    """

    def __init__(
        self, name: str, programs: list[str], ports: list[str], settings: dict[str, str] | None = None
    ) -> None:
        if os.geteuid() != 0:
            raise NotHere(f"{name} is started by root only")
        missing = [program for program in programs if shutil.which(program, path=PATH) is None]
        if missing:
            raise NotHere(f"{', '.join(missing)} is not installed")
        self.name = name
        # a short path: that of a socket has room for 107 characters
        self.base = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
        own = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS_OWN)}
        self.environment = own | {"PATH": PATH, "BASE": str(self.base)} | (settings or {})
        self.environment |= dict(zip(ports, free_ports(len(ports)), strict=True))
        up = subprocess.run(
            [HERE / f"{name}-up.sh"], env=self.environment, capture_output=True, text=True, timeout=90, check=False
        )
        if up.returncode != 0:
            self.close()
            raise AssertionError(f"{name}-up.sh: {up.stdout}{up.stderr}")
        said = re.findall(r"(\w+)=(\S+)", (self.base / "env").read_text())
        self.environment |= dict(said)

    def run(self, *line: str, cwd: Path | None = None) -> str:
        """Run one of its commands; what it prints."""
        ran = subprocess.run(
            line, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, f"{' '.join(line)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def submit(self, *line: str, cwd: Path) -> Job:
        """Submit a job."""
        return Job(self, line, cwd)

    def close(self) -> None:
        """End it, and all that it has started."""
        subprocess.run([HERE / f"{self.name}-down.sh"], env=self.environment, timeout=60, check=False)
        shutil.rmtree(self.base, ignore_errors=True)


class Job:
    """A job that was submitted, whose output goes to ``out`` and ``err`` in its directory.

    Its script has to write its exit code to ``code``: commands that wait for a job look every ten seconds.
    """

    def __init__(self, system: BatchSystem, line: tuple[str, ...], cwd: Path) -> None:
        self._directory = cwd
        for name in ("out", "err", "code"):
            (cwd / name).unlink(missing_ok=True)
        self.number = re.findall(r"\d+", system.run(*line, cwd=cwd))[0]

    def shows(self, text: str) -> None:
        """Wait until it has printed this."""
        self._shown("out", re.escape(text))

    def complains(self, text: str) -> None:
        """Wait until it has written this to standard error."""
        self._shown("err", re.escape(text))

    def wait(self) -> int:
        """Its exit code."""
        return int(self._shown("code", r"^\d+\n")[0])

    def _shown(self, name: str, pattern: str, limit: float = 60.0) -> re.Match[str]:
        path = self._directory / name
        end = time.monotonic() + limit
        while True:
            if path.exists() and (found := re.search(pattern, path.read_text())):
                return found
            if (self._directory / "code").exists() or time.monotonic() > end:
                raise AssertionError(f"no {pattern!r} in {name}\n{self}")
            time.sleep(0.05)

    def __str__(self) -> str:
        parts = [self._directory / name for name in ("out", "err", "code")]
        return "\n".join(f"--- {part.name}\n{part.read_text() if part.exists() else '(none)'}" for part in parts)


def free_ports(number: int) -> list[str]:
    """Ports that nobody listens on now, each with some free ones behind it."""
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in listening:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in listening]
