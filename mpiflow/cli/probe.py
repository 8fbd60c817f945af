"""Which hosts still answer: each is asked to run nothing much, by the very launcher that will be used again.

A node that lost power takes the whole job with it, rank 0 included, before anyone could say which node it was:
hydra and PRRTE end a job when the connection to one of their daemons breaks. So nobody is left to name it, and the
hosts have to be asked. Only the launcher knows how they are reached (ssh, srun, an agent of the site), so it asks.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from mpiflow.linux import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Seconds that a host has to answer, and how many are asked at once.
ANSWER_WITHIN, AT_ONCE = 20.0, 32


def silent_hosts(lines: Mapping[str, list[str]], pause: Callable[[float], bool]) -> list[str]:
    """Find the hosts that do not answer.

    Parameters
    ----------
    lines : mapping of str to list of str
        For each host, a command that ends with 0 if the host is well.
    pause : callable
        Waits so many seconds, or less when something happens; true ends the search.

    Returns
    -------
    list of str
        Hosts whose command failed or took too long. Empty when all did: then it is not the hosts that are at
        fault, but the way of asking.
    """
    waiting = list(lines)
    asked: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    silent: list[str] = []
    try:
        while waiting or asked:
            while waiting and len(asked) < AT_ONCE:
                host = waiting.pop(0)
                asked[host] = _ask(lines[host]), time.monotonic() + ANSWER_WITHIN
            for host, (child, end) in list(asked.items()):
                late = time.monotonic() > end
                if child.poll() is not None or late:
                    silent += [host] if late or child.returncode != 0 else []
                    _end(asked.pop(host)[0])
            if asked and pause(0.1):
                return []
    finally:
        for child, _ in asked.values():
            _end(child)
    return silent if len(silent) < len(lines) else []


def _ask(line: list[str]) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        line,
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        start_new_session=True,
        preexec_fn=functools.partial(die_with_parent, signal.SIGKILL, os.getpid()),
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a question, the ssh below its launcher included."""
    with contextlib.suppress(ProcessLookupError):  # all of it has ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
