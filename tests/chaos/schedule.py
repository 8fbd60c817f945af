"""Which fault comes when: an endless list that follows from a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from . import storage, virtual
from .faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .faults import Fault


class Appointment(NamedTuple):
    """A fault, and when it comes: after so many more tasks, or so many seconds after the start of a life."""

    fault: Fault
    tasks: int
    seconds: float


def legal(names: Sequence[str], mpi: str) -> list[Fault]:
    """The faults to draw from.

    Parameters
    ----------
    names : sequence of str
        Of faults that are wanted; none: all.
    mpi : str
        "mpich" or "openmpi"; the latter has no guardians.

    Raises
    ------
    ValueError
        For a name that no fault has.
    """
    known = (*FAULTS, *storage.NAMES, *virtual.FAULTS)
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"there is no fault named {', '.join(unknown)}; legal are {', '.join(known)}")
    return [
        fault
        for fault in FAULTS.values()
        if (not names or fault.name in names) and not (fault.target == "guardian" and mpi == "openmpi")
    ]


def appointments(seed: str, faults: Sequence[Fault]) -> Iterator[Appointment]:
    """Draw for ever.

    Parameters
    ----------
    seed : str
        The same one gives the same appointments.
    faults : sequence of Fault
        What to draw from.
    """
    draw = random.Random(f"schedule {seed}")
    weights = [fault.weight for fault in faults]
    while True:
        fault = draw.choices(faults, weights)[0]
        yield Appointment(fault, draw.randint(3, 40), draw.uniform(0.0, 1.0))
