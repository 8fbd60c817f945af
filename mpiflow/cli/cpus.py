"""How many ranks fit: what the batch system granted, or the cpus that this process may use."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def usable_cpus() -> int:
    """Count the cpus that this process may use: affinity and the cgroup's quota, not what the machine has."""
    quota = _cpu_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus if quota is None else max(1, min(cpus, math.floor(quota)))


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


def _cpu_quota(root: Path, membership: Path) -> float | None:
    """Cpus granted by the tightest cgroup quota around this process, version 2 or 1; None for no quota."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None  # not Linux
    quotas = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            quotas += [_read_quota(level / "cpu.max") for level in _levels(root, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_read_quota_v1(level) for level in _levels(root / "cpu", path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _levels(root: Path, path: str) -> list[Path]:
    """A cgroup's directory and all above it. In a container the path may exist only from the root on."""
    here = root / path.lstrip("/")
    return [here, *(level for level in here.parents if level == root or root in level.parents)]


def _read_quota(cpu_max: Path) -> float | None:
    """Version 2: ``150000 100000`` is 1.5 cpus, ``max 100000`` is no limit."""
    try:
        quota, period = cpu_max.read_text().split()
    except OSError:
        return None  # no such level, or the cpu controller is not on here
    return None if quota == "max" else int(quota) / int(period)


def _read_quota_v1(level: Path) -> float | None:
    """Version 1: the same in two files, where -1 is no limit."""
    try:
        quota = int((level / "cpu.cfs_quota_us").read_text())
        period = int((level / "cpu.cfs_period_us").read_text())
    except OSError:
        return None
    return quota / period if quota > 0 and period > 0 else None
