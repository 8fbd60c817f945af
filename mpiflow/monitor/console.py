"""What tasks print, on the console of rank 0: each line with the task it comes from, and not too many."""

from __future__ import annotations

import sys
import time
from typing import TextIO

#: Lines a second from all tasks together; a person reads fewer.
MOST_LINES = 200


class Console:
    """Writes tasks' output to rank 0's own."""

    def __init__(self) -> None:
        self._second = 0
        self._shown = 0
        self._left_out = 0

    def printed(self, worker: int, tid: int, name: str, stream: int, text: bytes, left_out: int) -> None:
        """Show what a task printed.

        Parameters
        ----------
        worker : int
            Rank it ran on; 0 in a lone process.
        tid, name
            The task.
        stream : {1, 2}
            Standard output or error.
        text : bytes
            What it printed, whole lines or not.
        left_out : int
            Bytes after it that the worker did not send.
        """
        self._new_second()
        target = sys.stdout if stream == 1 else sys.stderr
        prefix = f"[task {tid} {name}, rank {worker}] " if worker else f"[task {tid} {name}] "
        lines = text.decode("utf-8", "backslashreplace").splitlines()
        room = max(0, MOST_LINES - self._shown)
        for line in lines[:room]:
            _write(target, prefix + line)
        self._shown += min(len(lines), room)
        self._left_out += max(0, len(lines) - room)
        if left_out:
            _write(target, f"{prefix}… and {left_out:,} bytes more that are not shown")

    def say(self, words: str) -> None:
        """Tell the user something about the job itself."""
        _write(sys.stderr, f"mpiflow: {words}")

    def _new_second(self) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self.tell_left_out()
            self._second = second
            self._shown = 0

    def tell_left_out(self) -> None:
        """Say how many lines have not been shown."""
        if self._left_out:
            words = f"mpiflow: {self._left_out:,} lines printed by tasks are not shown (over {MOST_LINES} a second)"
            _write(sys.stderr, words)
            self._left_out = 0


def _write(stream: TextIO | None, line: str) -> None:
    """Write a line, as far as the stream can show it. What tasks print may be lost; the run goes on."""
    if stream is None:
        return
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (OSError, ValueError):  # a broken pipe, or closed: the script has done that, and knows
        return
