"""The options of ``mpiflow submit``: for each field of a `JobSpec` its option, and those that go on to the farm.

The table is read twice: to tell where the script begins, after which nothing is ours any more, and by argparse.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Literal, NamedTuple, NoReturn

from mpiflow.cli import arguments as farm
from mpiflow.cli.job_commands import check as check_command
from mpiflow.errors import ConfigurationError
from mpiflow.jobs import presets
from mpiflow.jobs.clouds import CLOUDS
from mpiflow.jobs.detect import find_system
from mpiflow.jobs.spec import COMMANDS, JobSpec, parse_memory
from mpiflow.jobs.systems import parse_time

_DESCRIPTION = "Write a batch script for a script, and submit it: it goes on by itself until its work is done."
_EPILOG = """\
Whatever follows the script is the script's own. In its place may be `batch` with its words, or `doctor`; a script
that is called like that is said as ./batch.

examples:
  mpiflow submit --nodes 128 --ranks-per-node 64 --time 2:00:00 --account X --queue Y script.py --steps 10
  mpiflow submit --nodes 4 --ranks-per-node 16 batch tasks.txt --retries 2

Options of the farm are taken as well, such as --checkpoint-all, --config or --isolation; `mpiflow --help` has them.
"""


class _Option(NamedTuple):
    """An option: how it is written, the field it fills, what it takes ("" for nothing), and how often it may come."""

    flags: tuple[str, ...]
    field: str
    takes: str
    help: str
    kind: Literal["text", "number", "many", "flag"] = "text"


_OPTIONS = (
    _Option(("--nodes", "-N"), "nodes", "N", "how many nodes (default 1)", "number"),
    _Option(("--ranks-per-node",), "ranks_per_node", "N", "ranks on each node, rank 0 included (default 1)", "number"),
    _Option(("--cores-per-rank",), "cores_per_rank", "N", "cores for each rank", "number"),
    _Option(("--runners-per-rank",), "runners_per_rank", "K", "tasks that a rank runs at once (default 1)", "number"),
    _Option(("--time", "-t"), "time", "TIME", "how long it may run: 2:00:00, 90m, or as the batch system writes it"),
    _Option(("--account", "-A"), "account", "NAME", "the account or project that pays"),
    _Option(("--queue", "--partition", "-q", "-p"), "queue", "NAME", "the queue, or partition"),
    _Option(("--qos",), "qos", "NAME", "the quality of service"),
    _Option(("--reservation",), "reservation", "NAME", "a reservation"),
    _Option(("--constraint",), "constraint", "TEXT", "what kind of nodes"),
    _Option(("--licenses",), "licenses", "LIST", "licences that it needs"),
    _Option(("--place",), "place", "TEXT", "how nodes are placed (PBS)"),
    _Option(("--filesystems",), "filesystems", "LIST", "file systems that have to be there, such as home:eagle (ALCF)"),
    _Option(("--gpus-per-node",), "gpus_per_node", "N", "GPUs of each node", "number"),
    _Option(("--memory",), "memory", "SIZE", "memory of each node, such as 64G"),
    _Option(("--exclusive",), "exclusive", "", "no other job on its nodes", "flag"),
    _Option(("--mail",), "mail", "ADDRESS", "who hears of it"),
    _Option(("--mail-events",), "mail_events", "LIST", "of what: begin,end,fail (default end,fail)"),
    _Option(("--name", "-J"), "name", "NAME", "its name (default: that of the script)"),
    _Option(("--pe",), "pe", "NAME", "the parallel environment (Grid Engine)"),
    _Option(("--array",), "array", "RANGE", "an array of jobs, such as 0-9 or 1-100%%10"),
    _Option(("--output", "-o"), "output", "DIR", "where the jobs' directories are made (default runinfo/jobs)"),
    _Option(("--directory",), "directory", "DIR", "where the script runs (default: here)"),
    _Option(("--directive",), "directives", "LINE", "a line for the batch system, as it is; may be repeated", "many"),
    _Option(("--setup",), "setup", "FILE", "a shell file to source first; may be repeated", "many"),
    _Option(("--module",), "modules", "NAME", "a module to load; may be repeated", "many"),
    _Option(("--venv",), "venv", "DIR", "a virtual environment"),
    _Option(("--conda",), "conda", "ENV", "an environment of conda"),
    _Option(("--container",), "container", "IMAGE", "an image in which the ranks run"),
    _Option(("--container-runtime",), "container_runtime", "NAME", "apptainer (default), shifter or podman-hpc"),
    _Option(("--stage-env",), "stage_env", "FILE", "an archive with the environment, unpacked on each node"),
    _Option(("--python",), "python", "FILE", "the interpreter on the nodes (default: this one)"),
    _Option(("--machine",), "machine", "NAME", "take what this machine needs; `mpiflow machines` lists them"),
    _Option(("--system",), "system", "NAME", "the batch system (default: what is found); fork: none, on this machine"),
    _Option(("--launcher",), "launcher", "NAME", "what starts the ranks (default: the usual one of the batch system)"),
    _Option(("--launcher-option",), "launcher_options", "WORD", "a word for the launcher; may be repeated", "many"),
    _Option(("--wrapper",), "wrapper", "WORDS", "with --launcher wrapped: the words before the command"),
    _Option(("--template",), "template", "FILE", "a template of your own, or a directory with some"),
    _Option(
        ("--warn-before",), "warn_before", "S", "seconds before its end at which it is told (default 120)", "number"
    ),
    _Option(("--max-restarts",), "max_restarts", "N", "how often it goes on after its time (default 10)", "number"),
    _Option(("--chain",), "chain", "N", "submit N links beforehand, where jobs may not submit", "number"),
    _Option(("--relaunches",), "relaunches", "N", "how often a farm that died is started again (default 3)", "number"),
)
#: Options of the farm that are passed on, with and without a value. Not those that only make sense in one run:
#: ``--fresh`` would throw away, each time the job goes on, what it has done before.
FARM_VALUES = (
    "--isolation", "--seed", "--run-dir", "--init-timeout", "--drain-before", "--config", "--stall-warning",
    "--heartbeat-threshold", "--report-within", "--quarantine-after",
)  # fmt: skip
FARM_FLAGS = ("--as-parsl", "--checkpoint-all", "--trust", "--no-guardian", "--no-progress")


class Asked(NamedTuple):
    """What the command line of ``mpiflow submit`` asks for.

    Attributes
    ----------
    spec : JobSpec
        The job.
    cloud : str
        The cloud for which its document is wanted; empty where a batch system is to have it.
    dry_run, wait : bool
        Whether to print the batch script only; whether to follow the job to its end.
    """

    spec: JobSpec
    cloud: str
    dry_run: bool
    wait: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpiflow submit: {message}\n`mpiflow submit --help` says what is legal", file=sys.stderr)
        sys.exit(2)


def parse(words: list[str]) -> Asked:
    """Take a command line apart. What argparse refuses ends the process with code 2.

    Parameters
    ----------
    words : list of str
        What follows the word ``submit``.

    Raises
    ------
    ConfigurationError
        A value is none that is legal, naming the field.
    """
    before, rest = _split(words)
    said = _parser().parse_args(before)
    if not rest:
        raise ConfigurationError("which script? Say `mpiflow submit [options] script.py [its own arguments]`")
    passed_on = tuple(said.farm or ())
    farm.parse([*passed_on, "script.py"])  # a wrong value shows now, and not in the job
    values: dict[str, Any] = {}
    for option in _OPTIONS:
        value = getattr(said, option.field)
        if value is not None:
            values[option.field] = tuple(value) if option.kind == "many" else value
    cloud = values.pop("system") if values.get("system") in CLOUDS else ""
    if "time" in values:
        values["time"] = parse_time(values["time"], "" if cloud else _system(values))
    if "memory" in values:
        values["memory"] = parse_memory(values["memory"])
    spec = JobSpec(script=rest[0], arguments=tuple(rest[1:]), farm_options=passed_on, **values)
    if spec.script in COMMANDS:
        if cloud:
            raise ConfigurationError(f"{spec.script}: a document for a cloud is made for a script only")
        check_command(spec)
    return Asked(presets.fill(spec), cloud, said.dry_run, said.wait)


def _system(values: dict[str, Any]) -> str:
    """The batch system whose way to write times counts."""
    if values.get("system"):
        return str(values["system"])
    if values.get("machine"):
        return str(presets.find(values["machine"]).job.get("system", "")) or find_system()
    return find_system()


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our options, and the script with what is its own.

    An option and its value become one word: argparse takes no value that begins with a dash, as directives do.
    """
    takes_value = {flag: option.flags[0] for option in _OPTIONS if option.takes for flag in option.flags}
    takes_value |= {flag: flag for flag in FARM_VALUES}
    options: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            return options, words[position + 1 :]
        if word in takes_value and position + 1 < len(words):
            options.append(f"{takes_value[word]}={words[position + 1]}")
            position += 2
        elif word.startswith("-") and len(word) > 1:
            options.append(word)
            position += 1
        else:
            break
    return options, words[position:]


def _whole(text: str) -> int:
    if not (text.isascii() and text.lstrip("-").isdecimal()):
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a whole number")
    return int(text)


class _PassOn(argparse.Action):
    """Keeps an option of the farm as it was written."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        kept = [*(namespace.farm or ()), option_string]
        namespace.farm = kept if values == [] else [*kept, values]


def _parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="mpiflow submit",
        usage="mpiflow submit [options] script.py [the script's own arguments ...]\n"
        "       mpiflow submit [options] batch FILE | TEMPLATE ::: INPUT ...\n"
        "       mpiflow submit [options] doctor",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--dry-run", action="store_true", help="print the batch script, and do nothing")
    made.add_argument("--wait", action="store_true", help="follow the job to its end, and end with its exit code")
    for option in _OPTIONS:
        if option.kind == "flag":
            made.add_argument(*option.flags, dest=option.field, action="store_true", default=None, help=option.help)
        elif option.kind == "many":
            made.add_argument(*option.flags, dest=option.field, action="append", metavar=option.takes, help=option.help)
        else:
            made.add_argument(
                *option.flags,
                dest=option.field,
                type=_whole if option.kind == "number" else str,
                metavar=option.takes,
                help=option.help,
            )
    for flag in FARM_VALUES:
        made.add_argument(flag, dest="farm", action=_PassOn, help=argparse.SUPPRESS)
    for flag in FARM_FLAGS:
        made.add_argument(flag, dest="farm", action=_PassOn, nargs=0, help=argparse.SUPPRESS)
    return made
