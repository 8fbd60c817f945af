"""Who is who below a launcher.

    launcher ─▶ (the MPI's own processes) ─▶ guardian ─▶ rank ─▶ zygote ─▶ runner × k ─▶ what a task has started
                                             (MPICH only)

Nothing of mpiflow says so; it is read from /proc. A launched process has its rank in the environment that it was
started with, and so has whatever was forked below it, whatever those did to their own later. A zygote leads a session
below such a process, so the rank is its parent, and a parent of a rank that has a rank too is a guardian. Rank 0 has
no zygote: it is the innermost of its number.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

#: What hydra and prterun tell a process: its rank.
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")


class Process(NamedTuple):
    """A process, as /proc has it.

    Attributes
    ----------
    pid, parent, group, session : int
        Process ids.
    state : str
        One letter: R, S, D, T (stopped), Z.
    started : int
        When, in clock ticks; with the pid the name of a process for good.
    """

    pid: int
    parent: int
    group: int
    session: int
    state: str
    started: int


class Rank(NamedTuple):
    """The processes of one rank; None for what is not there."""

    number: int
    guardian: Process | None
    rank: Process
    zygote: Process | None
    runners: list[Process]


def look(pid: int) -> Process | None:
    """A process; None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, group, session, *rest = stat.rpartition(")")[2].split()
    return Process(pid, int(parent), int(group), int(session), state, int(rest[15]))


def everything() -> dict[int, Process]:
    """All processes of the machine."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def below(pid: int) -> list[Process]:
    """All descendants of a process, parents first; zombies left out."""
    children: dict[int, list[Process]] = {}
    for process in everything().values():
        children.setdefault(process.parent, []).append(process)
    found, next_ones = [], children.get(pid, [])
    while next_ones:
        found += next_ones
        next_ones = [child for process in next_ones for child in children.get(process.pid, ())]
    return [process for process in found if process.state != "Z"]


def rank_of(pid: int) -> int | None:
    """The rank in the environment that a process was started with."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return None
    for variable in variables:
        name, _, value = variable.partition(b"=")
        if name.decode("utf-8", "replace") in RANK_VARIABLES and value.isdigit():
            return int(value)
    return None


def command(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def ranks(launcher: int) -> dict[int, Rank]:
    """The ranks below a launcher, by number; those whose processes have ended are left out."""
    members: dict[int, list[Process]] = {}
    tree = below(launcher)
    numbers = {process.pid: rank_of(process.pid) for process in tree}
    for process in tree:
        number = numbers[process.pid]
        if number is None:
            # A zygote in place of one that has died was started by exec, from a cleaned environment.
            number = numbers[process.pid] = numbers.get(process.parent) if _leads(process) else None
        if number is not None:
            members.setdefault(number, []).append(process)
    found = {number: _sorted_out(number, of_rank) for number, of_rank in members.items()}
    return {number: rank for number, rank in sorted(found.items()) if rank is not None}


def _leads(process: Process) -> bool:
    return process.session == process.pid


def _sorted_out(number: int, members: list[Process]) -> Rank | None:
    pids = {process.pid: process for process in members}
    outermost = next((process for process in members if process.parent not in pids), None)
    if outermost is None:
        return None
    zygote = next((p for p in members if _leads(p) and p is not outermost and p.parent in pids), None)
    if zygote is not None:
        rank = pids[zygote.parent]
    else:  # rank 0, or a rank in its first or last moments; what has run on from a dead rank is not one
        inside = [p for p in members if p.parent == outermost.pid and "mpiflow" in command(p.pid)]
        rank = inside[0] if inside else outermost
    guardian = outermost if rank is not outermost else None
    runners = [p for p in members if zygote is not None and p.parent == zygote.pid and p.group == p.pid]
    return Rank(number, guardian, rank, zygote, runners)


def still_there(process: Process) -> bool:
    """Whether it runs, and is not another one with its number."""
    now = look(process.pid)
    return now is not None and now.started == process.started and now.state != "Z"


def marked(mark: str) -> list[Process]:
    """All processes that were started with this variable ("NAME=value") in their environment, or forked from such."""
    found = []
    for process in everything().values():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment.split(b"\0") and process.state != "Z":
            found.append(process)
    return found


def shared_files(processes: list[Process]) -> set[str]:
    """Files below /dev/shm that these have mapped now."""
    found = set()
    for process in processes:
        try:
            maps = Path(f"/proc/{process.pid}/maps").read_text()
        except OSError:
            continue
        for line in maps.splitlines():
            path = line.partition("/dev/shm/")
            if path[1] and not path[2].endswith("(deleted)"):
                found.add(path[1] + path[2])
    return found


def main() -> None:
    """Show the tree below the launcher whose process id is given: for whoever looks at a job."""
    for rank in ranks(int(sys.argv[1])).values():
        print(rank)


if __name__ == "__main__":
    main()
