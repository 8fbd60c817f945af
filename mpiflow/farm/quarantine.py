"""Which hosts fail whatever they are given.

A node with a full disk or a lost file system fails its tasks at once, asks for more, and so eats a whole
workflow while every other node is at work. A host is taken out of service when so many tasks in a row have
failed there, and in the same time more tasks ended well than badly elsewhere. The second half is what tells a
bad node from a bad script: where everything fails everywhere, or half of all tasks do, nobody is to blame.
"""

from __future__ import annotations


class Quarantine:
    """Results by host.

    Parameters
    ----------
    limit : int
        Failures in a row; 0: never.

    Examples
    --------
    >>> quarantine = Quarantine(limit=3)
    >>> [quarantine.on_results("n1", 0, 1), quarantine.on_results("n2", 5, 0), quarantine.on_results("n1", 0, 2)]
    [False, False, True]
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._done = self._failed = 0
        #: For each host whose last task has failed: failures in a row, and the totals before the first of them.
        self._streaks: dict[str, tuple[int, int, int]] = {}

    def on_results(self, host: str, done: int, failed: int) -> bool:
        """So many tasks have ended well, and then so many badly; whether the host is to be taken out of service."""
        if done:
            self._streaks.pop(host, None)
        suspected = False
        if failed:
            streak, done_before, failed_before = self._streaks.get(host, (0, self._done + done, self._failed))
            streak += failed
            self._streaks[host] = streak, done_before, failed_before
            well_elsewhere = self._done + done - done_before
            badly_elsewhere = self._failed + failed - failed_before - streak
            suspected = 0 < self.limit <= streak and well_elsewhere > badly_elsewhere
        self._done += done
        self._failed += failed
        return suspected
