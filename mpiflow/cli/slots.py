"""How many ranks fit: what the batch system granted, or the processors that this process may use."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mpiflow.linux import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Mapping


def default_size(environ: Mapping[str, str] | None = None) -> int:
    """How many ranks to start when nobody said: what the batch system granted, else one per usable cpu.

    At least 2, because rank 0 works for nobody.
    """
    granted = allocated_slots(os.environ if environ is None else environ)
    return max(2, granted or usable_cpus())


def allocated_slots(environ: Mapping[str, str]) -> int | None:
    """How many ranks the batch system made room for, or None outside an allocation.

    Parameters
    ----------
    environ : mapping of str to str
        The environment of a batch script.
    """
    for name in ("SLURM_NTASKS", "NSLOTS", "LSB_DJOB_NUMPROC"):
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    if "SLURM_JOB_CPUS_PER_NODE" in environ:
        return _slurm_slots(environ["SLURM_JOB_CPUS_PER_NODE"], environ.get("SLURM_CPUS_PER_TASK", "1"))
    for name in ("PBS_NODEFILE", "COBALT_NODEFILE"):
        if name in environ:
            return _count_lines(Path(environ[name]))
    return None


def _slurm_slots(cpus_per_node: str, cpus_per_task: str) -> int | None:
    """Tasks that fit a job asked for by nodes only: ``16(x2),8`` with 4 cpus a task makes 10."""
    width = int(cpus_per_task) if cpus_per_task.isdecimal() and int(cpus_per_task) else 1
    nodes = re.findall(r"(\d+)(?:\(x(\d+)\))?", cpus_per_node)
    return sum(int(cpus) // width * int(count or 1) for cpus, count in nodes) or None


def _count_lines(nodefile: Path) -> int | None:
    """Lines of a node file, one per rank."""
    try:
        return len(nodefile.read_text().split()) or None
    except OSError:
        return None  # some sites have the file on the first node only
