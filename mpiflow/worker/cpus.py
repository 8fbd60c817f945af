"""How many processors this process may use, which is seldom how many the machine has."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """Processors this process may use: its affinity mask, cut by the quotas of its control groups.

    Returns
    -------
    int
        At least 1; half a processor of quota counts as none.
    """
    quota = cpu_quota("/sys/fs/cgroup", "/proc/self/cgroup")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def share_of_cores(ranks: int) -> int:
    """Processors that each of several ranks on a node may use.

    Parameters
    ----------
    ranks : int
        Ranks on this node. When the launcher has bound each to processors of its own, those are its share;
        when all may use the same, they are divided.
    """
    mine = usable_cpus()
    bound = mine * ranks <= (os.cpu_count() or 1)
    return mine if bound else max(1, mine // ranks)


def cpu_quota(root: str | os.PathLike[str], membership: str | os.PathLike[str]) -> float | None:
    """Processors granted by the tightest control group around this process, version 1 or 2; None for no quota.

    Parameters
    ----------
    root : path
        Where control groups are mounted.
    membership : path
        The file that names this process's.
    """
    quotas: list[float | None] = []
    for line in _read(membership).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            quotas += [_quota(f"{level}/cpu.max") for level in _levels(os.fspath(root), path)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(level) for level in _levels(os.path.join(root, "cpu"), path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _levels(root: str, path: str) -> list[str]:
    """A group's directory and all above it. In a container the path may exist only from the root on."""
    names = [name for name in path.split("/") if name]
    return [os.path.join(root, *names[:depth]) for depth in range(len(names), -1, -1)]


def _quota(path: str) -> float | None:
    """Version 2: ``150000 100000`` is 1.5 processors, ``max 100000`` is no limit, no file is none either."""
    words = _read(path).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _quota_v1(level: str) -> float | None:
    """Version 1: the same in two files, where -1 is no limit."""
    quota = _read(f"{level}/cpu.cfs_quota_us").strip()
    period = _read(f"{level}/cpu.cfs_period_us").strip()
    limited = quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0
    return int(quota) / int(period) if limited else None


def _read(path: str | os.PathLike[str]) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""  # no such level, not this version, or not Linux
