"""What a task can ask about itself while it runs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    import numpy

#: Number of the task that runs in this process, -1 when none does; written by `worker.tasks` only.
task_id = -1
#: Name of its app; written by `worker.tasks` only.
name = ""
#: Seed of its DataFlowKernel; written by `worker.tasks` and `kernel.dataflow` only.
seed = 0
#: Position of the item within a bulk call, -1 in an ordinary task; written by `apps.bulk` only.
item = -1
#: This rank's part in the gang that runs, which gives it a communicator; None in every other task. Written by
#: `worker.gangs` only.
gang: AbstractContextManager[Any] | None = None


def rng() -> numpy.random.Generator:
    """A random generator whose stream belongs to the task that asks.

    The stream depends on ``Config(seed=...)``, the task's number and, in a bulk call, the item's place, and on
    nothing else: not on the worker, the number of workers, or what ran there before. Two calls in one task
    give two generators at the same start. In the script itself it is a stream of its own.

    Returns
    -------
    numpy.random.Generator
        PCG64, seeded by ``SeedSequence((seed, task number + 1, item + 1))``; numpy documents such spawned
        keys as independent streams.

    Examples
    --------
    >>> from mpiflow import rng
    >>> rng().random() == rng().random()
    True
    """
    import numpy

    sequence = numpy.random.SeedSequence((seed, task_id + 1, item + 1))
    return numpy.random.Generator(numpy.random.PCG64(sequence))
