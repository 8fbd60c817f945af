"""Parameters of Parsl that are accepted and do nothing: workers are the ranks of one job, and over MPI nothing listens.

A program keeps them, and hears once that they are ignored: a setting that silently does nothing is looked for in
the wrong place.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping

#: What Parsl's executors of this kind take beside what a farm understands, with Parsl's defaults.
HIGH_THROUGHPUT: dict[str, object] = {
    "provider": None,
    "launch_cmd": None,
    "interchange_launch_cmd": None,
    "address": None,
    "loopback_address": "127.0.0.1",
    "worker_port": None,
    "worker_port_range": (54000, 55000),
    "interchange_port_range": (55000, 56000),
    "worker_debug": False,
    "cores_per_worker": 1.0,
    "mem_per_worker": None,
    "heartbeat_threshold": 120,
    "heartbeat_period": 30,
    "poll_period": 10,
    "address_probe_timeout": None,
    "worker_logdir_root": None,
    "manager_selector": None,
    "block_error_handler": True,
    "encrypted": True,
    "remote_monitoring_radio": None,
}
#: The same of Parsl's `MPIExecutor`.
MPI: dict[str, object] = {
    **{
        name: default
        for name, default in HIGH_THROUGHPUT.items()
        if name not in ("cores_per_worker", "mem_per_worker", "manager_selector")
    },
    "encrypted": False,
}

_said: set[str] = set()


def ignored(of: str, given: Mapping[str, object]) -> None:
    """Say, in one line on standard error, which parameters have no effect; the same line once.

    Parameters
    ----------
    of : str
        What they were given to.
    given : mapping of str to object
        The parameters with their values; nothing is said when it is empty.

    Examples
    --------
    >>> ignored("MPIExecutor", {})
    """
    if not given:
        return
    names = ", ".join(_shown(name, value) for name, value in given.items())
    line = f"mpiflow: {of}: ignored, for it means nothing in one MPI job: {names}"
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


def _shown(name: str, value: object) -> str:
    """The parameter; with the kind of object where it is one of those that Parsl configures by."""
    mine = type(value).__module__.startswith("mpiflow.parsl")
    return f"{name} ({type(value).__name__})" if mine else name


def take_ignored(of: str, given: Mapping[str, object], known: Container[str]) -> None:
    """Refuse parameters that Parsl does not have either, and say of the others that they are ignored.

    Parameters
    ----------
    of : str
        What they were given to.
    given : mapping of str to object
        What came in as ``**given``.
    known : container of str
        Names that Parsl has.

    Raises
    ------
    TypeError
        In Python's own words, for any other name.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"{of}() got an unexpected keyword argument {name!r}")
    ignored(of, given)
