"""How many processors this process may use, which is seldom how many the machine has."""

from __future__ import annotations

import math
import os


def usable_cpus() -> int:
    """Processors this process may use: its affinity mask, cut by the quota of its control group.

    Returns
    -------
    int
        At least 1. Half a processor of quota counts as one.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1  # no affinity here, so every processor is ours
    quota = _quota()
    return max(1, min(allowed, math.ceil(quota)) if quota is not None else allowed)


def _quota() -> float | None:
    """Processors' worth of time this control group gets, or None when it is not limited."""
    two = _read("/sys/fs/cgroup/cpu.max").split()
    if len(two) == 2 and two[0].isdigit():
        return int(two[0]) / int(two[1])
    quota, period = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota.strip().isdigit() and period.strip().isdigit():
        return int(quota) / int(period)
    return None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


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
