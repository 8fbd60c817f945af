"""A launcher's command line: which hosts it uses, and the same line without some of them.

A line is read up to the program that the launcher starts, and changed in as few places as will do: a hostfile is
replaced by one without the lines of a failed host, a list loses a name, srun gets an ``--exclude``, and the number of
ranks goes down where the hosts that are left have no room for it. What the line does not say, the batch system's
allocation does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.hosts import Host, among, expand, granted, hostfile_without, in_hostfile, in_list, list_without
from mpiflow.jobs.launcher_options import EXCLUDE, GRAMMARS, NODES, Dialect, Option, options_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Shorter(NamedTuple):
    """A line without some hosts.

    Attributes
    ----------
    words : list of str
        The line.
    hostfile : str or None
        What the hostfile that it names must hold, where it names a new one.
    hosts : list of Host
        Those that are left.
    ranks : int or None
        How many ranks it starts, where that can be told.
    """

    words: list[str]
    hostfile: str | None
    hosts: list[Host]
    ranks: int | None


class LaunchLine:
    """A launcher's command line.

    Parameters
    ----------
    words : sequence of str
        The line, the launcher first.
    dialect : Dialect
        Whose options it has.
    environ : mapping of str to str
        The environment it is run in.

    Raises
    ------
    ConfigurationError
        If it names a hostfile that cannot be read.

    Examples
    --------
    >>> line = LaunchLine("mpiexec -hosts a,b,c -ppn 2 -n 6 python".split(), "hydra", {})
    >>> " ".join(line.without(["b"], "unused").words)
    'mpiexec -hosts a,c -ppn 2 -n 4 python'
    """

    def __init__(self, words: Sequence[str], dialect: Dialect, environ: Mapping[str, str]) -> None:
        self.words = list(words)
        self._dialect = dialect
        self._grammar = GRAMMARS.get(dialect)
        self._environ = environ
        self._options = options_of(self.words, self._grammar) if self._grammar is not None else []
        self._hostfile = ""  #: what the hostfile of the line holds
        #: Hosts that it uses; empty where nobody names any, and the ranks run on this one
        self.hosts = self._find_hosts()

    def without(self, left_out: Sequence[str], hostfile: str) -> Shorter:
        """Give the line without some hosts.

        Parameters
        ----------
        left_out : sequence of str
            Their names; those that the line does not use change nothing.
        hostfile : str
            Where a new hostfile may be written.
        """
        kept = [host for host in self.hosts if not among(host.name, left_out)]
        ranks = self._value(self._grammar.ranks) if self._grammar is not None else None
        count = int(ranks) if ranks is not None and ranks.isdecimal() else None
        if len(kept) == len(self.hosts):
            return Shorter(list(self.words), None, kept, count)
        if self._dialect == "srun":
            return self._srun_without(left_out, kept, count)
        return self._mpiexec_without(left_out, kept, count, hostfile)

    def probe(self, host: str) -> list[str]:
        """Give a line by which this launcher starts nothing much on one host: it ends with 0 if the host is well."""
        assert self._grammar is not None
        reach = [option for option in self._options if option.name in self._grammar.for_a_probe]
        options = [word for option in reach for word in self.words[option.start : option.end]]
        only = {"hydra": ["-hosts", host], "openmpi": ["--host", host]}
        where = only.get(self._dialect, ["-Q", "-N1", "-w", host])
        # Open MPI 5 may hang over a command that ends at once: a healthy host would count as lost.
        nothing_much = ["sleep", "1"] if self._dialect == "openmpi" else ["true"]
        return [self.words[0], *options, *where, "-n", "1", *nothing_much]

    def _find_hosts(self) -> list[Host]:
        if self._grammar is None:
            return []
        path = self._value(self._grammar.files)
        listed = self._value(self._grammar.lists)
        if path is None and listed is None and self._dialect == "hydra":
            path = self._environ.get("HYDRA_HOST_FILE")
        if path is not None:
            self._hostfile = _read(path)
        if listed is not None:
            return [Host(name) for name in expand(listed)] if self._dialect == "srun" else in_list(listed)
        return in_hostfile(self._hostfile) if path is not None else granted(self._environ)

    def _mpiexec_without(self, left_out: Sequence[str], kept: list[Host], count: int | None, path: str) -> Shorter:
        assert self._grammar is not None
        edits: dict[Option, str] = {}
        text: str | None = None
        for option in self._options:
            if option.name in self._grammar.files:
                text, edits[option] = hostfile_without(self._hostfile, left_out), path
            elif option.name in self._grammar.lists:
                edits[option] = list_without(option.value, left_out)
        more: list[str] = []
        if not edits:  # the batch system's hosts, or those of HYDRA_HOST_FILE
            more = ["-f" if self._dialect == "hydra" else "--hostfile", path]
            text = hostfile_without(self._hostfile, left_out) if self._hostfile else self._as_hostfile(kept)
        if count is not None:
            a_host = self._value(self._grammar.ranks_a_host) or self._mapped()
            hosts = self.hosts if self._dialect == "openmpi" else [Host(name, slots or 1) for name, slots in self.hosts]
            count = _ranks_left(count, hosts, kept, a_host)
            edits |= {option: str(count) for option in self._options if option.name in self._grammar.ranks}
        elif self._dialect == "hydra":
            count = sum(host.slots or 1 for host in kept)
        return Shorter(self._edited(edits, more), text, kept, count)

    def _srun_without(self, left_out: Sequence[str], kept: list[Host], count: int | None) -> Shorter:
        assert self._grammar is not None
        gone = [host.name for host in self.hosts if among(host.name, left_out)]
        said = self._environ.get("SLURM_NTASKS", "")
        ranks = count or (int(said) if said.isdecimal() else sum(host.slots or 1 for host in self.hosts))
        nodes = self._value(NODES)
        wanted = int(nodes) if nodes is not None and nodes.isdecimal() else len(self.hosts)
        if wanted > len(kept):
            some = wanted < len(self.hosts)  # which of them it used is not known
            used = [Host(host.name) for host in self.hosts[:wanted]] if some else self.hosts
            ranks = _ranks_left(ranks, used, kept, self._value(self._grammar.ranks_a_host))
            wanted = len(kept)
        edits: dict[Option, str] = {}
        for option in self._options:
            if option.name in EXCLUDE:
                edits[option] = ",".join((option.value, *gone))
            elif option.name in NODES:
                edits[option] = str(wanted)
            elif option.name in self._grammar.ranks:
                edits[option] = str(ranks)
            elif option.name in self._grammar.lists:
                edits[option] = ",".join(host.name for host in kept)
        names = {option.name for option in edits}
        more = [] if names & {*EXCLUDE} else ["--exclude", ",".join(gone)]
        more += [] if names & {*NODES} else ["-N", str(wanted)]
        more += [] if names & {*self._grammar.ranks} else ["-n", str(ranks)]
        return Shorter(self._edited(edits, more), None, kept, ranks)

    def _as_hostfile(self, hosts: list[Host]) -> str:
        form = "{}:{}" if self._dialect == "hydra" else "{} slots={}"
        return "".join(f"{form.format(*host) if host.slots is not None else host.name}\n" for host in hosts)

    def _value(self, names: Sequence[str]) -> str | None:
        """What the line says last for an option with one of these names."""
        values = [option.value for option in self._options if option.name in names]
        return values[-1] if values else None

    def _mapped(self) -> str | None:
        """How many ranks Open MPI's ``--map-by ppr:4:node`` puts on each host."""
        said = re.match(r"ppr:(\d+):node\b", self._value(("map-by",)) or "")
        return said[1] if said else None

    def _edited(self, edits: Mapping[Option, str], more: Sequence[str]) -> list[str]:
        words = list(self.words)
        for option, value in sorted(edits.items(), key=lambda edit: -edit[0].start):
            whole = words[option.start : option.end]
            if len(whole) > 1:
                words[option.end - 1] = value
            else:  # -N4, --nodes=4
                words[option.start] = whole[0][: len(whole[0]) - len(option.value)] + value
        return [words[0], *more, *words[1:]]


def _ranks_left(ranks: int, hosts: Sequence[Host], kept: Sequence[Host], a_host: str | None) -> int:
    """How many ranks the hosts that are left have room for, when so many were meant for all of them.

    Where nobody said how much room a host has, each takes what it had before.
    """
    if a_host is not None and a_host.isdecimal():
        return min(ranks, int(a_host) * len(kept))
    room = {host.name: host.slots for host in hosts}
    known = [slots for slots in room.values() if slots is not None]
    if len(known) < len(room):
        room = dict.fromkeys(room, 1)
        total, left = len(room), len(kept)
    else:
        total, left = sum(known), sum(room.get(host.name) or 1 for host in kept)
        if ranks <= total:
            return min(ranks, left)
    return max(ranks * left // total, min(ranks, len(kept)))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")  # names of hosts are ASCII, comments need not be
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigurationError(f"hostfile {path}: {why} (looked in {os.getcwd()})") from None
