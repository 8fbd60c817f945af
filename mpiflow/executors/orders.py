"""What a resource specification asks for: several ranks for an mpi_app, whole nodes for any other task.

A task without a specification, which is nearly every one, never comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpiflow.comm import wire
from mpiflow.errors import InvalidResourceSpecification, NotEnoughRanks
from mpiflow.executors.base import check_resources, no_memory_limit
from mpiflow.executors.options import options

if TYPE_CHECKING:
    from mpiflow.executors.fleet import Delivery
    from mpiflow.executors.gangs import GangTask
    from mpiflow.farm.gangs import Lane, Shape
    from mpiflow.kernel.task import Task

#: Keys of a specification for an mpi_app.
LEGAL = ("num_ranks", "num_nodes", "ranks_per_node", "priority")


class Orders:
    """The specifications of one executor's tasks.

    Parameters
    ----------
    label : str
        Of the executor, for words to the user.
    workers : sequence of int
        Those that it may use.
    alone : bool
        Whether there is no MPI, and so one rank.
    launcher : str or None
        How tasks start programs on nodes of their own; None where they get none.
    most : int, optional
        How many of those run at once; default: any number.
    kind : int
        Kind of its tasks' records.
    """

    def __init__(
        self, label: str, workers: Sequence[int], alone: bool, launcher: str | None, most: int | None, kind: int
    ) -> None:
        self._label = label
        self._workers = frozenset(workers)
        self._alone = alone
        self._launcher = launcher
        self._most = most
        self._kind = wire.TASK_FORK if kind == wire.TASK_FORK else wire.TASK
        self._lane: Lane | None = None

    def is_for_several(self, task: Task) -> bool:
        """Whether a task with a specification needs more than a place in a runner.

        Raises
        ------
        InvalidResourceSpecification
            For one that means nothing here.
        NotEnoughRanks
            Where there is one rank only, and more are asked for.
        """
        if task.app.kind != "mpi":
            if self._launcher is None or not task.resources.keys() - {"priority"}:
                check_resources(task, self._label, ("priority",))
                return False
            return True
        shape = shape_of(task)
        if task.memory:
            raise no_memory_limit(task, self._label, "in the ranks themselves")
        if self._alone and shape.ranks > 1:
            words = f"{task.words} asks for {shape}, and without MPI there is one; start the script with mpiexec"
            raise NotEnoughRanks(words)
        return not self._alone

    def gang_task(self, delivery: Delivery) -> GangTask:
        """A task that needs several ranks, for the fleet; the record of its delivery is the packed arguments."""
        from mpiflow.executors.gangs import GangTask
        from mpiflow.farm.gangs import Lane, Shape

        task: Task = delivery.task
        if task.app.kind == "mpi":
            return GangTask(delivery, shape_of(task), self._workers, Lane())
        from mpiflow.executors.programs import Program, check_specification

        assert self._launcher is not None
        check_specification(task.resources, task.words)
        counts = (count_of(task, "num_nodes"), count_of(task, "num_ranks"), count_of(task, "ranks_per_node"))
        open_mpi = options.launch.startswith("Open MPI")
        arguments = (delivery.record, delivery.attachments)
        program = Program(task.resources, counts, self._launcher, open_mpi, self._kind, *arguments)
        self._lane = self._lane or Lane(self._most)
        return GangTask(delivery, Shape(0, counts[0]), self._workers, self._lane, program)


def shape_of(task: Task) -> Shape:
    """What the specification of a call of an mpi_app asks for; InvalidResourceSpecification for what is none."""
    from mpiflow.farm.gangs import Shape

    given = task.resources
    unknown = set(given) - set(LEGAL)
    if unknown:
        words = f"{task.words}: an mpi_app takes only {', '.join(LEGAL)} in a resource specification"
        raise InvalidResourceSpecification(unknown, words)
    ranks, nodes, per_node = (count_of(task, key) for key in LEGAL[:3])
    if nodes:
        per_node = per_node or max(1, ranks // nodes)
    elif per_node:
        nodes = ranks // per_node
    elif ranks:
        return Shape(ranks)
    if not nodes or (ranks or nodes * per_node) != nodes * per_node:
        shown = {key: given[key] for key in LEGAL[:3] if key in given}
        words = f"{task.words}: {shown} is no number of ranks: num_ranks is num_nodes times ranks_per_node"
        raise InvalidResourceSpecification({"num_ranks"}, words)
    return Shape(nodes * per_node, nodes, per_node)


def count_of(task: Task, key: str) -> int:
    """A count in the specification of a call, 0 where it is not given; a text of digits is one, as in Parsl."""
    value = task.resources.get(key)
    if value is None:
        return 0
    count = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        words = f"{task.words}: {key} is {value!r}; legal is a whole number from 1 up"
        raise InvalidResourceSpecification({key}, words)
    return count
