"""Hosts: the lists and files that launchers and batch systems name them in, and those lists without some of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Host(NamedTuple):
    """A host of a job, and how many ranks it has room for; None where nobody said."""

    name: str
    slots: int | None = None


def same_host(one: str, other: str) -> bool:
    """Whether two names mean one host: a short name stands for any full name that begins with it.

    Examples
    --------
    >>> same_host("n3", "N3.site.edu"), same_host("n3.here.edu", "n3.there.edu"), same_host("10.0.0.1", "10.0.0.2")
    (True, False, False)
    """
    one, other = one.lower(), other.lower()
    if one == other:
        return True
    if _ADDRESS.fullmatch(one) or _ADDRESS.fullmatch(other):
        return False
    short = one.partition(".")[0]
    return short == other.partition(".")[0] and short in (one, other)


_ADDRESS = re.compile(r"[\d.]+|[\da-f]*:[\da-f:.]*")


def among(name: str, hosts: Iterable[str]) -> bool:
    """Whether a host is one of several."""
    return any(same_host(name, other) for other in hosts)


# --- hostfiles: a host a line, with slots as `n1:2` (hydra) or `n1 slots=2` (Open MPI) ------------------------


def in_hostfile(text: str) -> list[Host]:
    """Hosts that a hostfile names, each once; a host on several lines has their slots together.

    Parameters
    ----------
    text : str
        What the file holds.
    """
    return _together(host for line in text.splitlines() if (host := _in_line(line)) is not None)


def hostfile_without(text: str, left_out: Sequence[str]) -> str:
    """Give a hostfile without the lines of some hosts; all other lines stay as they are.

    Parameters
    ----------
    text : str
        What the file holds.
    left_out : sequence of str
        The hosts.
    """
    lines = text.splitlines()
    kept = [line for line in lines if (host := _in_line(line)) is None or not among(host.name, left_out)]
    return "".join(f"{line}\n" for line in kept)


def _in_line(line: str) -> Host | None:
    words = line.partition("#")[0].split()
    if not words:
        return None
    name, _, count = words[0].partition(":")
    said = re.search(r"\bslots\s*=\s*(\d+)", " ".join(words[1:]))
    number = said[1] if said else count
    return Host(name.rpartition("@")[2], int(number) if number.isdecimal() else None)


# --- lists: `a,b:2` -------------------------------------------------------------------------------------------


def in_list(text: str) -> list[Host]:
    """Hosts of a list such as ``a,b:2``, as `in_hostfile` gives them."""
    return in_hostfile(text.replace(",", "\n"))


def list_without(text: str, left_out: Sequence[str]) -> str:
    """Give a list such as ``a,b:2`` without some hosts."""
    return ",".join(hostfile_without(text.replace(",", "\n"), left_out).split("\n")[:-1])


# --- what a batch system granted --------------------------------------------------------------------------------


def granted(environ: Mapping[str, str]) -> list[Host]:
    """Hosts of the batch system's allocation; empty where there is none, or where it does not name its hosts.

    Parameters
    ----------
    environ : mapping of str to str
        The environment of a batch script.
    """
    if names := environ.get("SLURM_JOB_NODELIST", ""):
        hosts = expand(names)
        tasks = repeated(environ.get("SLURM_TASKS_PER_NODE", ""))
        agree = len(tasks) == len(hosts)
        return [Host(name, tasks[place] if agree else None) for place, name in enumerate(hosts)]
    for variable in ("PBS_NODEFILE", "COBALT_NODEFILE", "LSB_DJOB_HOSTFILE"):  # a line for each rank
        if found := in_hostfile(_text(environ.get(variable, ""))):
            return [Host(name, slots or 1) for name, slots in found]
    lines = [line.split() for line in _text(environ.get("PE_HOSTFILE", "")).splitlines()]
    return _together(Host(words[0], int(words[1])) for words in lines if len(words) > 1 and words[1].isdecimal())


def expand(names: str) -> list[str]:
    """Expand Slurm's short form of many names.

    Examples
    --------
    >>> expand("n[08-10,12],login,r[1-2]c[1-2]")
    ['n08', 'n09', 'n10', 'n12', 'login', 'r1c1', 'r1c2', 'r2c1', 'r2c2']
    """
    return [name for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", names) for name in _expand_one(part)]


def _expand_one(part: str) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    inside, _, after = rest.partition("]")
    numbers: list[str] = []
    for piece in inside.split(","):
        first, _, last = piece.partition("-")
        if last.isdecimal() and first.isdecimal():
            numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        else:
            numbers.append(piece)
    return [before + number + tail for number in numbers for tail in _expand_one(after)]


def repeated(counts: str) -> list[int]:
    """Expand Slurm's short form of many counts; empty where it is none.

    Examples
    --------
    >>> repeated("16(x2),8")
    [16, 16, 8]
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?(?:,|$)", counts)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _together(hosts: Iterable[Host]) -> list[Host]:
    """Each host once, under its first name; one that was named again has a slot for each time, or as it said."""
    slots: dict[str, int | None] = {}
    for name, count in hosts:
        slots[name] = count if name not in slots else (slots[name] or 1) + (count or 1)
    return [Host(name, count) for name, count in slots.items()]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace") if path else ""
    except OSError:
        return ""  # some sites have the file on the first node only: the hosts are not known here
