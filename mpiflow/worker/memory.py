"""How much memory a task uses, with all it has started. Loaded with the first task that has a limit."""

from __future__ import annotations

from mpiflow import linux


def of_tree(pid: int, limit: int) -> int:
    """Bytes of memory that a process and all below it have.

    Parameters
    ----------
    pid : int
        The process.
    limit : int
        Above it, what several of them share is counted once; below it nobody needs to know so exactly.

    Examples
    --------
    >>> import os
    >>> of_tree(os.getpid(), 1 << 60) > 1_000_000
    True
    """
    pids = [pid, *linux.descendants(pid)]
    used = sum(map(linux.resident_memory, pids))
    return used if used <= limit else sum(map(linux.share_of_memory, pids))
