"""The options of launchers, as far as hosts and numbers of ranks go; and those options on a command line.

Where the program begins is not written anywhere, so an option has to be known to take no value, or two; any other is
taken to have one. Being wrong about an unknown option costs little: no option of ours is looked for behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Whose options a line has. "other": nobody's that we know; such a line is never changed.
Dialect = Literal["hydra", "openmpi", "srun", "other"]


class Grammar(NamedTuple):
    """The options of a launcher that matter here, without their dashes.

    Attributes
    ----------
    no_value, two_values : frozenset of str
        Those that take not exactly one value.
    files, lists : tuple of str
        Those that name a hostfile; those that name hosts.
    ranks, ranks_a_host : tuple of str
        How many ranks there are; how many on each host.
    for_a_probe : frozenset of str
        Those that say how a host is reached, and belong to any other start on it.
    """

    no_value: frozenset[str]
    two_values: frozenset[str]
    files: tuple[str, ...]
    lists: tuple[str, ...]
    ranks: tuple[str, ...]
    ranks_a_host: tuple[str, ...]
    for_a_probe: frozenset[str]


GRAMMARS: dict[Dialect, Grammar] = {
    "hydra": Grammar(
        frozenset({
            "genvnone", "genvall", "envnone", "envall", "enable-x", "disable-x", "disable-auto-cleanup",
            "disable-hostname-propagation", "v", "hybrid-hosts", "info", "pmi-port", "prepend-rank",
            "print-all-exitcodes", "profile", "skip-launch-node", "verbose", "l",
        }),
        frozenset(("genv", "env")),
        files=("f", "hostfile", "machinefile", "machine"),
        lists=("hosts", "host"),
        ranks=("n", "np"),
        ranks_a_host=("ppn", "perhost"),
        for_a_probe=frozenset(("launcher", "launcher-exec", "iface", "localhost", "bootstrap", "bootstrap-exec")),
    ),
    "openmpi": Grammar(
        frozenset({
            "allow-run-as-root", "oversubscribe", "nooversubscribe", "nolocal", "report-bindings",
            "display-map", "display-allocation", "tag-output", "timestamp-output", "merge-stderr-to-stdout",
            "use-hwthread-cpus", "q", "quiet", "v", "verbose", "pernode", "enable-recovery", "continuous",
            "get-stack-traces", "report-child-jobs-separately", "index-argv-by-rank",
        }),
        frozenset(("mca", "prtemca", "pmixmca", "gmca", "gpmixmca", "omca")),
        files=("hostfile", "machinefile", "default-hostfile"),
        lists=("host", "H", "hosts"),
        ranks=("n", "np", "c"),
        ranks_a_host=("N", "npernode"),
        for_a_probe=frozenset(("allow-run-as-root", "mca", "prtemca", "pmixmca", "gmca", "prefix", "path")),
    ),
    "srun": Grammar(
        frozenset({
            "K", "Q", "v", "l", "O", "s", "X", "u", "E", "H", "k", "Z", "b", "kill-on-bad-exit", "quiet",
            "verbose", "label", "overcommit", "oversubscribe", "overlap", "exclusive", "exact", "unbuffered",
            "preserve-env", "pty", "no-kill", "disable-status", "hold", "spread-job", "use-min-nodes",
            "contiguous",
        }),
        frozenset(),
        files=(),
        lists=("w", "nodelist"),
        ranks=("n", "ntasks"),
        ranks_a_host=("ntasks-per-node",),
        for_a_probe=frozenset(("overlap", "jobid", "het-group")),
    ),
}
EXCLUDE, NODES = ("x", "exclude"), ("N", "nodes")


class Option(NamedTuple):
    """An option of the line: where it is, and its value."""

    name: str
    value: str
    start: int
    end: int


def options_of(words: Sequence[str], grammar: Grammar) -> list[Option]:
    """The options before the program.

    Parameters
    ----------
    words : sequence of str
        A command line, the launcher first.
    grammar : Grammar
        Of its launcher.
    """
    found: list[Option] = []
    position = 1
    while position < len(words) and words[position].startswith("-") and words[position] != "--":
        option = _option(words, position, grammar)
        found.append(option)
        position = option.end
    return found


def _option(words: Sequence[str], start: int, grammar: Grammar) -> Option:
    word = words[start]
    name, equals, value = word.lstrip("-").partition("=")
    if equals:
        return Option(name, value, start, start + 1)
    if grammar is GRAMMARS["srun"] and not word.startswith("--") and len(name) > 1:
        return Option(name[0], "" if name[0] in grammar.no_value else name[1:], start, start + 1)
    length = 0 if name in grammar.no_value else 2 if name in grammar.two_values else 1
    end = min(start + 1 + length, len(words))
    return Option(name, words[end - 1] if length and end > start + 1 else "", start, end)
