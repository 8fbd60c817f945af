"""A user at a login node: types commands of mpiflow, and waits for what is to be seen of their jobs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from batch_systems import BatchSystem


def has_hydra() -> bool:
    """Whether the MPI of these tests is MPICH, which speaks PMI-2."""
    return (Path(sys.executable).parent / "mpiexec.hydra").exists()


#: Open MPI has its own mpiexec in an allocation: Slurm's PMIx cannot start two of its ranks on one virtual node.
SLURM = ("--nodes", "2", "--ranks-per-node", "2", *(() if has_hydra() else ("--launcher", "openmpi")))
GRID_ENGINE = ("--pe", "mpi", "--ranks-per-node", "4")


class Desk:
    """A user in a directory of their own, who types commands of mpiflow.

    Parameters
    ----------
    system : BatchSystem
        The batch system there is.
    place : Path
        The directory.
    options : tuple of str
        What every job needs there.
    """

    def __init__(self, system: BatchSystem, place: Path, *options: str) -> None:
        self.system = system
        self.place = place
        self.options = options
        self.interpreter = [sys.executable]
        self.environment = system.environment | {"XDG_STATE_HOME": str(place / "state")}

    def types(self, *words: str, code: int | None = 0, limit: float = 200.0) -> tuple[str, str]:
        """Type a command; what it prints, and what it complains about."""
        line = [*self.interpreter, "-m", "mpiflow", *words]
        ran = subprocess.run(
            line, env=self.environment, cwd=self.place, capture_output=True, text=True, timeout=limit, check=False
        )
        assert code is None or ran.returncode == code, f"{words}: {ran.returncode}\n{ran.stdout}{ran.stderr}{self}"
        return ran.stdout, ran.stderr

    def submits(self, *words: str, text: str) -> str:
        """Submit a script; the job's id."""
        (self.place / "script.py").write_text(text)
        out, _ = self.types("submit", *self.options, *words)
        found = re.match(r"submitted: job (\S+)", out)
        assert found, out
        return found[1]

    def sees(self, pattern: str, files: str, limit: float = 90.0) -> None:
        """Wait until this is in one of the files that the job prints into."""
        end = time.monotonic() + limit
        while not any(re.search(pattern, path.read_text()) for path in self.place.glob(f"runinfo/jobs/*/{files}")):
            assert time.monotonic() < end, f"no {pattern!r} in {files}{self}"
            time.sleep(0.1)

    def state(self, job: str) -> str:
        """What `mpiflow status` says of a job, after its name."""
        return self.types("status", job, code=None)[0].split("\n")[0].partition(": ")[2]

    def reaches(self, job: str, states: str, limit: float = 90.0) -> str:
        """Wait until a job has a state that matches; its words."""
        end = time.monotonic() + limit
        while not re.match(states, state := self.state(job)):
            assert time.monotonic() < end, f"{job} is {state}, not {states}{self}"
            time.sleep(0.5)
        return state

    def __str__(self) -> str:
        files = sorted(path for path in self.place.glob("runinfo/jobs/*/*") if path.name != "job.sh")
        return "".join(f"\n--- {path.name}\n{path.read_text()}" for path in files)
