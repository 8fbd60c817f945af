"""The lines by which the program says what it does: imported by every task, so it imports next to nothing."""

from __future__ import annotations

import os


def note_execution(name: str, life: str, mark: str, parents: list[str]) -> None:
    """A task has begun, with these results of others."""
    _append("executions", f"{life} {name} {mark} {','.join(parents)}\n")


def note_seen(name: str, life: str, key: str, mark: str) -> None:
    """The script sees a result."""
    _append("seen", f"{life} {name} {key} {mark}\n")


def _append(path: str, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
