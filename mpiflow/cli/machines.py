"""``mpiflow machines``: which presets there are, and what is known of one."""

from __future__ import annotations

import argparse
import sys

from mpiflow.errors import ConfigurationError

_EPILOG = """\
A preset of your own is a file NAME.toml in ~/.config/mpiflow/machines/; docs/batch.md says what is in it, and
`mpiflow machines --toml NAME` prints one to begin with.
"""


def machines(arguments: list[str]) -> int:
    """List the presets, or show one.

    Parameters
    ----------
    arguments : list of str
        The command line after ``machines``.

    Returns
    -------
    int
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="mpiflow machines",
        description="Show which machines have a preset for `mpiflow submit --machine`, and what is known of one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the machine; all are listed without it")
    parser.add_argument("--toml", action="store_true", help="print the file of its preset")
    parsed = parser.parse_args(arguments)
    if parsed.toml and parsed.name is None:
        parser.error("--toml wants the NAME of a machine")
    try:
        print(_shown(parsed.name, parsed.toml), end="")
    except ConfigurationError as error:
        print(f"mpiflow: {error}", file=sys.stderr)
        return 2
    return 0


def _shown(name: str | None, toml: bool) -> str:
    from mpiflow.jobs.machine_page import page
    from mpiflow.jobs.presets import find

    if name is None:
        return _list()
    machine = find(name)
    return machine.path.read_text(encoding="utf-8") if toml else page(machine)


def _list() -> str:
    """A line for each preset, the user's own marked; one whose file is wrong is in it with what is wrong."""
    from mpiflow.jobs.presets import files, read, users_directory

    known = files()
    width = max(map(len, known))
    lines = []
    for name, path in known.items():
        try:
            machine = read(path)
        except ConfigurationError as error:
            lines.append(f"{name:<{width}}  wrong: {error}")
            continue
        how = machine.job.get("system") or ("by hand" if machine.by_hand else "")
        words = ", ".join(word for word in (machine.title, machine.site, how) if word)
        own = " (your own)" if path.parent == users_directory() else ""
        lines.append(f"{name:<{width}}  {words}{own}")
    return "".join(line + "\n" for line in lines)
