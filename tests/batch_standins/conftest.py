"""Stand-ins for batch systems, each in a directory of its own, and whatever they started ended after the test."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standins.standin import Standin


@functools.cache
def our_mpiexec() -> str | None:
    """The words that start ranks on this machine, as any user; None where no mpiexec is known."""
    beside = Path(sys.executable).parent / "mpiexec"
    path = str(beside) if beside.exists() else shutil.which("mpiexec")
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    if found := re.search(r"\(Open MPI\)\s+v?(\d+)", said):
        flags = ["--oversubscribe", "--bind-to", "none"]
        flags += ["--with-ft", "ulfm"] if int(found[1]) >= 5 else []
        flags += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    elif "HYDRA" in said:
        flags = ["-launcher", "fork", "-host", "localhost"]
    else:
        return None
    return shlex.join([path, *flags])


@pytest.fixture
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Standin]]:
    """Bring up a stand-in by its name."""
    mpiexec = our_mpiexec()
    if mpiexec is None:
        pytest.skip("no mpiexec of MPICH or Open MPI beside this interpreter or on PATH")
    started: list[Standin] = []

    def bring(system: str) -> Standin:
        started.append(Standin(tmp_path_factory.mktemp(system), system, mpiexec))
        return started[-1]

    yield bring
    for one in started:
        one.close()
