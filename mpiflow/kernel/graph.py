"""Who waits for whom: pure bookkeeping on task numbers.

Only tasks that wait, and tasks that are waited for, are in it: a call without dependencies never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable


class TaskGraph:
    """Unmet dependencies.

    Examples
    --------
    >>> graph = TaskGraph()
    >>> graph.add(2, [0, 1])
    >>> graph.settle(0), graph.settle(1)
    ([], [2])
    """

    def __init__(self) -> None:
        self._unmet: dict[int, int] = {}
        self._dependants: dict[int, list[int]] = {}

    def add(self, task: int, depends: Iterable[int]) -> None:
        """Have a task wait for others, none of which has settled; named twice counts twice."""
        count = 0
        for other in depends:
            self._dependants.setdefault(other, []).append(task)
            count += 1
        self._unmet[task] = self._unmet.get(task, 0) + count

    def settle(self, task: int) -> list[int]:
        """A task has ended, well or not; returns those that wait for nothing any more, in order of calls."""
        ready: list[int] = []
        for dependant in self._dependants.pop(task, ()):
            left = self._unmet[dependant] - 1
            if left:
                self._unmet[dependant] = left
            else:
                del self._unmet[dependant]
                ready.append(dependant)
        return ready

    @property
    def waiting(self) -> int:
        """Tasks that wait for others."""
        return len(self._unmet)

    def sanity_check(self) -> None:
        """Check that both indexes agree; tests call it after each event."""
        counted: dict[int, int] = {}
        for dependants in self._dependants.values():
            for dependant in dependants:
                counted[dependant] = counted.get(dependant, 0) + 1
        assert counted == self._unmet
