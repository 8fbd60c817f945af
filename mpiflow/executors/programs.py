"""Programs of several nodes: a task that gets whole nodes, and starts an MPI program on them itself.

This is Parsl's MPI mode. The task runs in a runner of the first of its nodes; what it was given stands in its
environment, with the beginnings of command lines that start a program there: ``$PARSL_MPI_PREFIX my_program``.

Under Open MPI the line for mpiexec is in Open MPI's own words: it knows neither ``-ppn`` nor ``-hosts``.
"""

from __future__ import annotations

import os

from mpiflow.comm.pickling import pack, unpack
from mpiflow.errors import InvalidResourceSpecification

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: What may stand in ``$PARSL_MPI_PREFIX``.
LAUNCHERS = ("srun", "aprun", "mpiexec")
#: Keys of a specification for such a task.
LEGAL = ("num_nodes", "num_ranks", "ranks_per_node", "launcher_options")


def check_launcher(of: str, launcher: object) -> str:
    """The same; ValueError for one that is none."""
    if launcher not in LAUNCHERS:
        raise ValueError(f"{of}: mpi_launcher is {launcher!r}; legal are {', '.join(map(repr, LAUNCHERS))}")
    return str(launcher)


def variables_of(
    specification: dict[str, Any], counts: tuple[int, int, int], hosts: Sequence[str], launcher: str, open_mpi: bool
) -> dict[str, str]:
    """What a task finds in its environment.

    Parameters
    ----------
    specification : dict
        As the call gave it.
    counts : tuple of int
        Its nodes, ranks and ranks on each node; 0 for what is not given, which follows from the others.
    hosts : sequence of str
        The nodes that it has.
    launcher : {"srun", "aprun", "mpiexec"}
        What ``$PARSL_MPI_PREFIX`` begins with.
    open_mpi : bool
        Whether mpiexec is Open MPI's.

    Examples
    --------
    >>> variables_of({"num_nodes": 2}, (2, 8, 0), ["n1", "n2"], "mpiexec", open_mpi=False)["PARSL_MPI_PREFIX"]
    'mpiexec -n 8 -ppn 4 -hosts n1,n2 '
    """
    nodes, ranks, per_node = counts
    per_node = per_node or -(-ranks // nodes) or 1
    ranks = ranks or nodes * per_node
    options, named = specification.get("launcher_options", ""), ",".join(hosts)
    mpiexec = f"mpiexec -n {ranks} -ppn {per_node} -hosts {named} {options}"
    if open_mpi:
        slots = ",".join(f"{host}:{per_node}" for host in hosts)
        mpiexec = f"mpiexec -n {ranks} --map-by ppr:{per_node}:node --host {slots} {options}"
    prefixes = {
        "aprun": f"aprun -n {ranks} -N {per_node} -node-list {named} {options}",
        "srun": f"srun --ntasks {ranks} --ntasks-per-node {per_node} --nodelist {named} --nodes {nodes} {options}",
        "mpiexec": mpiexec,
    }
    return {
        **{f"PARSL_{key.upper()}": str(specification[key]) for key in LEGAL if key in specification},
        "PARSL_NUM_RANKS": str(ranks),
        "PARSL_RANKS_PER_NODE": str(per_node),
        "PARSL_MPI_NODELIST": named,
        **{f"PARSL_{name.upper()}_PREFIX": prefix for name, prefix in prefixes.items()},
        "PARSL_MPI_PREFIX": prefixes[launcher],
    }


def check_specification(specification: dict[str, Any], words: str) -> None:
    """InvalidResourceSpecification for one that is none of a program of several nodes; the counts are not looked at."""
    unknown = set(specification) - set(LEGAL) - {"priority"}
    if unknown:
        legal = f"{', '.join(LEGAL)} and priority"
        raise InvalidResourceSpecification(unknown, f"{words}: an MPIExecutor takes only {legal} in a specification")
    if "num_nodes" not in specification:
        words = f"{words}: num_nodes is missing, and only whole nodes are given out"
        raise InvalidResourceSpecification(set(specification), words)


class Program:
    """The arguments of such a task, until it is known where it runs.

    Parameters
    ----------
    specification, counts, launcher, open_mpi
        As for `variables_of`.
    kind : int
        Kind of its record.
    arguments : bytes
        The packed arguments, and in `beside` their buffers.
    """

    def __init__(
        self,
        specification: dict[str, Any],
        counts: tuple[int, int, int],
        launcher: str,
        open_mpi: bool,
        kind: int,
        arguments: bytes,
        beside: Sequence[Any],
    ) -> None:
        self.kind = kind
        self._asks = (specification, counts)
        self._by = (launcher, open_mpi)
        self._arguments = arguments
        self._beside = beside

    def record(self, hosts: Sequence[str]) -> tuple[bytes, list[Any]]:
        """Payload and attachments of the task's record, once its nodes are known."""
        beside: list[Any] = []
        buffers = [bytearray(memoryview(buffer).cast("B")) for buffer in self._beside]
        variables = variables_of(*self._asks, hosts, *self._by)
        return pack(_Opened(variables, self._arguments, buffers), beside), beside


class _Opened:
    """Packed arguments that set the environment of the task when it opens them.

    The alternative is a second function for each app, known to every worker, with durations of its own.
    """

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return open_arguments, self._parts


def open_arguments(variables: dict[str, str], arguments: bytes, beside: list[bytearray]) -> Any:
    """Set a task's environment, and give its arguments; the runner puts the environment back after the task."""
    os.environ.update(variables)
    return unpack(arguments, beside)
