"""A stand-in that is ready to take jobs: its commands on a PATH of its own, and what became of its jobs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from standins import commands, spool

#: What launchers and batch systems tell a process; none of it may come from the shell that runs the tests.
_NOT_INHERITED = (
    "PMI",
    "OMPI_",
    "PRTE_",
    "HYDRA_",
    "HYDI_",
    "MPI_LOCAL",
    "SLURM_",
    "SGE_",
    "PBS_",
    "LSB_",
    "LSF_",
    "FLUX_",
    "COBALT_",
    "MPIFLOW_",
    "JOB_ID",
    "_CONDOR_",
    "CONDOR_CONFIG",
    "STANDIN_",
)


class Standin:
    """A stand-in that is ready to take jobs.

    Attributes
    ----------
    base : Path
        Its directory.
    environment : dict of str to str
        In which its commands are found.
    flavour : str
        Whose mpiexec starts the ranks, as a launcher's name: hydra or openmpi.
    """

    def __init__(self, base: Path, system: str, mpiexec: str) -> None:
        self.base, self.system, self.mpiexec = base, system, mpiexec
        self.flavour = "hydra" if "-launcher" in mpiexec else "openmpi"
        # A launcher of Open MPI that is killed leaves its directory of sockets behind, named by its process id: one day
        # another has that id. And the name of a socket may not be long.
        self._temporary = tempfile.mkdtemp(prefix="jobs-", dir="/tmp")
        programs = commands.install(base, system, mpiexec)
        own = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        path = f"{programs}:{os.path.dirname(sys.executable)}:{own.get('PATH', '')}"
        self.environment = own | {"PATH": path, "XDG_STATE_HOME": str(base / "state")}
        self.environment["TMPDIR"] = self._temporary

    def plays(self, name: str, part: str) -> None:
        """Let one more command play a part, such as mpiexec that of PALS."""
        commands.command(self.base / "bin", name, self.base, self.system, self.mpiexec, part)

    def run(self, *line: str, cwd: Path, stdin: str | None = None, code: int = 0) -> str:
        """Run a command; what it printed, and what it complained of, when the code is as it should be."""
        ran = subprocess.run(
            line,
            cwd=cwd,
            env=self.environment,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code, f"{' '.join(line)}: {ran.returncode}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def wait(self, number: int, within: float = 120.0) -> int:
        """Wait for the end of a job; its exit code."""
        end = time.monotonic() + within
        place = self.base / "jobs" / str(number)
        while spool.look(place).get("state") != "done":
            assert time.monotonic() < end, f"job {number} has not ended: {spool.look(place)}\n{self.story()}"
            time.sleep(0.1)
        return int(spool.look(place)["code"])

    def runs(self, number: int) -> int:
        """How often a job was started."""
        return int(spool.look(self.base / "jobs" / str(number))["runs"])

    def jobs(self) -> list[int]:
        """The numbers of all jobs."""
        return sorted(int(place.name) for place in (self.base / "jobs").iterdir())

    def story(self) -> str:
        """All that was written, for a failed test."""
        parts = [path for path in sorted(self.base.rglob("keeper")) if path.is_file()]
        return "\n".join(f"--- {path}\n{path.read_text()}" for path in parts)

    def close(self) -> None:
        """End every process of every job."""
        for place in (self.base / "jobs").iterdir():
            spool.tell(place, cancelled=True)
        mark = f"{self.base}/".encode()  # in PATH, or where a job sees nothing of that, in the name of its directory
        for process in Path("/proc").iterdir():
            if not re.fullmatch(r"\d+", process.name) or int(process.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        shutil.rmtree(self._temporary, ignore_errors=True)
