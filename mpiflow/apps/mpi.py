"""What a rank calls for an mpi_app: the user's function with a communicator."""

from __future__ import annotations

from mpiflow import context
from mpiflow.errors import InvalidResourceSpecification

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What says in a call on how many ranks it runs.
SPECIFICATION = "parsl_resource_specification"


class MPIFunction:
    """The user's function, called on each rank of a gang with ``comm=``; the first rank's result is the task's.

    Parameters
    ----------
    func : callable
        Takes a keyword argument ``comm``.
    takes_specification : bool
        Whether it has a place for ``parsl_resource_specification`` too.
    """

    def __init__(self, func: Callable[..., Any], takes_specification: bool) -> None:
        self.func = func
        self.takes_specification = takes_specification

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on this rank."""
        specification = kwargs.get(SPECIFICATION)
        if not self.takes_specification:
            kwargs.pop(SPECIFICATION, None)
        if context.gang is not None:
            with context.gang as comm:
                first = comm.Get_rank() == 0
                value = self.func(*args, comm=comm, **kwargs)
            return value if first else None
        if not specification:
            words = f"{context.name}: nobody says on how many ranks it runs: @mpi_app(ranks=4), or in the call"
            raise InvalidResourceSpecification(set(), f"{words} parsl_resource_specification={{'num_ranks': 4}}")
        from mpiflow.comm.gangs import alone

        return self.func(*args, comm=alone(), **kwargs)
