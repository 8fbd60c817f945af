"""Machine presets: what one has to know of a supercomputer before the first job there, as data.

A preset is a TOML file: defaults of a `JobSpec`, what a node has, and facts in words with where each was read and when.
Those in the package are in ``mpiflow/jobs/machines/``; a user's own are in ``~/.config/mpiflow/machines/`` and win over
one of the same name. ``docs/batch.md`` says how to write one.

What the user says wins over the preset, field by field, and only directives, modules and setup files are added to the
preset's own. A field that has its default value counts as not said. The preset's launcher options go with the preset's
launcher only: they are words of that program.

Machines change, and only few of these facts could be tried where they apply. So each says whether it was (``checked``),
and the tests see to it that no value of a preset in the package is without a fact that says where it comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mpiflow.errors import ConfigurationError, OptionalModuleMissing
from mpiflow.jobs.spec import JobSpec

#: What a fact may be about, in the order in which a page tells them.
TOPICS = (
    "launcher", "inside", "cores", "gpus", "filesystems", "scratch", "environment", "container", "continuation",
    "tmpdir", "mpi4py", "limits",
)  # fmt: skip

_PACKAGED = Path(__file__).parent / "machines"
#: What says which job it is, and not where it runs: no preset can.
_NOT_IN_A_PRESET = ("script", "arguments", "machine")
#: Fields to which the user's values are added; all others they replace.
_ADDED = ("directives", "modules", "setup")
#: The types of the keys at the top, of a node, of its GPUs, and of a fact.
_TOP: dict[str, type] = {
    "title": str, "site": str, "by_hand": str, "requires": list, "job": dict, "node": dict, "gpus": dict, "facts": list,
}  # fmt: skip
_NODE: dict[str, type] = {"cores": int, "threads_per_core": int, "counts_threads": bool}
_GPUS: dict[str, type] = {"per_node": int, "ranks_per_node": int, "launcher_options": list}


class Fact(NamedTuple):
    """Something to know about a machine.

    Attributes
    ----------
    topic : str
        One of `TOPICS`.
    about : tuple of str
        Which values of the preset it is the reason for, such as ``"node.cores"``.
    text : str
        The fact.
    source, date : str
        Where it was read or tried, and when.
    checked : bool
        Whether it was tried where it applies, and not only read.
    """

    topic: str
    about: tuple[str, ...]
    text: str
    source: str
    date: str
    checked: bool


class Machine(NamedTuple):
    """A preset.

    Attributes
    ----------
    name, title, site : str
        Its name in ``--machine``; its name in a sentence; whose it is.
    path : Path
        The file.
    by_hand : str
        Why no job can be submitted there by mpiflow; empty where one can.
    requires : tuple of str
        Fields of a `JobSpec` without which the site refuses a job.
    job : dict
        Defaults of a `JobSpec`.
    cores, threads_per_core : int
        Of a node: cores that a job may use, and hardware threads of each; 0 cores: not known.
    counts_threads : bool
        Whether the batch system there counts threads where it says CPUs, as cores_per_rank then does.
    gpus, gpu_ranks : int
        GPUs of a node, and for how many ranks of a node `gpu_options` are; 0: none.
    gpu_options : tuple of str
        Options of the launcher that give each rank its GPU.
    facts : tuple of Fact
        What there is to know.
    """

    name: str
    title: str
    site: str
    path: Path
    by_hand: str
    requires: tuple[str, ...]
    job: dict[str, Any]
    cores: int
    threads_per_core: int
    counts_threads: bool
    gpus: int
    gpu_ranks: int
    gpu_options: tuple[str, ...]
    facts: tuple[Fact, ...]


# --- which there are --------------------------------------------------------------------------------------


def users_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a user's own presets are.

    Parameters
    ----------
    environ : mapping of str to str
        The environment; ``XDG_CONFIG_HOME`` is obeyed.
    """
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "mpiflow" / "machines"


def files(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """The file of each preset by its name, the user's own before those of the package.

    Parameters
    ----------
    environ : mapping of str to str
        The environment, which says where the user's own are.
    """
    found = {path.stem: path for path in _PACKAGED.glob("*.toml")}
    found.update({path.stem: path for path in users_directory(environ).glob("*.toml")})
    return dict(sorted(found.items()))


def find(name: str, environ: Mapping[str, str] = os.environ) -> Machine:
    """Read the preset of a machine.

    Parameters
    ----------
    name : str
        Its name, as in ``--machine``.
    environ : mapping of str to str
        The environment, which says where the user's own presets are.

    Raises
    ------
    ConfigurationError
        There is none of that name, naming those that are spelt alike; or its file is wrong, naming file and key.

    Examples
    --------
    >>> find("frontier").cores
    56
    """
    known = files(environ)
    if name not in known:
        close = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
        own = users_directory(environ)
        raise ConfigurationError(f"machine is {name!r}, which is not known; {meant} Presets of your own go into {own}/")
    return read(known[name])


# --- reading one ------------------------------------------------------------------------------------------


def read(path: Path) -> Machine:
    """Read the file of a preset.

    Parameters
    ----------
    path : Path
        The file; its name without ``.toml`` is the machine's.

    Raises
    ------
    ConfigurationError
        Naming the file, the key and what is legal.
    """
    try:
        table = _loads()(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of which those of TOML and of UTF-8 are two
        raise ConfigurationError(f"{path}: is not TOML: {error}") from error
    _check(path, "", table, _TOP)
    node, gpus, job = table.get("node", {}), table.get("gpus", {}), table.get("job", {})
    _check(path, "node.", node, _NODE)
    _check(path, "gpus.", gpus, _GPUS)
    _refuse_unknown(path, "job.", job, sorted(_legal_fields()))
    job = {name: tuple(value) if isinstance(value, list) else value for name, value in job.items()}
    _check_job(path, job)
    requires = _texts(path, "requires", table.get("requires", []))
    _refuse_unknown(path, "requires: ", dict.fromkeys(requires), sorted(_legal_fields()))
    return Machine(
        name=path.stem,
        title=table.get("title", path.stem),
        site=table.get("site", ""),
        path=path,
        by_hand=table.get("by_hand", ""),
        requires=requires,
        job=job,
        cores=node.get("cores", 0),
        threads_per_core=node.get("threads_per_core", 1),
        counts_threads=node.get("counts_threads", False),
        gpus=gpus.get("per_node", 0),
        gpu_ranks=gpus.get("ranks_per_node", 0),
        gpu_options=_texts(path, "gpus.launcher_options", gpus.get("launcher_options", [])),
        facts=tuple(_facts(path, table.get("facts", []))),
    )


def _loads() -> Callable[[str], dict[str, Any]]:
    """The reader of TOML: Python's own, or the package that it came from."""
    for module in ("tomllib", "tomli"):
        try:
            loads: Callable[[str], dict[str, Any]] = import_module(module).loads
        except ModuleNotFoundError:
            continue
        return loads
    raise OptionalModuleMissing(["tomli"], "Python 3.10 reads TOML only with it; say `pip install tomli`")


def _legal_fields() -> set[str]:
    return {field.name for field in fields(JobSpec)} - set(_NOT_IN_A_PRESET)


def _refuse_unknown(path: Path, where: str, table: Mapping[str, Any], legal: list[str]) -> None:
    for key in table:
        if key not in legal:
            raise ConfigurationError(f"{path}: {where}{key}: there is no such key; legal are {', '.join(legal)}")


def _check(path: Path, where: str, table: Mapping[str, Any], legal: Mapping[str, type]) -> None:
    _refuse_unknown(path, where, table, list(legal))
    for key, value in table.items():
        kind = legal[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            words = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}[kind]
            raise ConfigurationError(f"{path}: {where}{key} is {value!r}; legal is {words}")
        if isinstance(value, int) and kind is int and value < 1:
            raise ConfigurationError(f"{path}: {where}{key} is {value!r}; legal is a whole number from 1 up")


def _texts(path: Path, key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ConfigurationError(f"{path}: {key} is {value!r}; legal is a list of texts")
    return tuple(value)


def _check_job(path: Path, job: Mapping[str, Any]) -> None:
    """See that each value alone is one that a job may have; whether they go together, the job's own values decide."""
    for name, value in job.items():
        beside: dict[str, Any] = {"script": "script.py", "warn_before": 0}
        if name == "wrapper":
            beside["launcher"] = "wrapped"
        elif name == "launcher" and value == "wrapped":
            beside["wrapper"] = "mpiexec"
        try:
            JobSpec(**{**beside, name: value})
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: job.{error}") from None


def _facts(path: Path, tables: list[Any]) -> Iterator[Fact]:
    for number, table in enumerate(tables, 1):
        where = f"{path}: fact {number}"
        if not isinstance(table, dict) or set(table) - {"about"} != {"topic", "text", "source", "date", "checked"}:
            raise ConfigurationError(f"{where}: has topic, text, source, date and checked, and may have about")
        if table["topic"] not in TOPICS:
            raise ConfigurationError(f"{where}: topic is {table['topic']!r}; legal are {', '.join(TOPICS)}")
        if not isinstance(table["checked"], bool):
            raise ConfigurationError(f"{where}: checked is {table['checked']!r}; legal are true and false")
        yield Fact(
            topic=table["topic"],
            about=_texts(path, f"fact {number}: about", table.get("about", [])),
            text=" ".join(str(table["text"]).split()),
            source=str(table["source"]),
            date=str(table["date"]),
            checked=table["checked"],
        )


# --- a job on one -----------------------------------------------------------------------------------------


def fill(spec: JobSpec, environ: Mapping[str, str] = os.environ) -> JobSpec:
    """Give the same job with what the preset of its machine says where the job says nothing.

    Parameters
    ----------
    spec : JobSpec
        The job; one without a machine is given back as it is.
    environ : mapping of str to str
        The environment, which says where the user's own presets are.

    Raises
    ------
    ConfigurationError
        The machine is not known, its nodes are smaller than the job takes them to be, or its site wants to be told
        more.

    Examples
    --------
    >>> spec = fill(JobSpec(script="a.py", machine="frontier", account="x", time=60, warn_before=9, ranks_per_node=8))
    >>> spec.system, spec.launcher, spec.cores_per_rank
    ('slurm', 'srun', 7)
    """
    if not spec.machine:
        return spec
    machine = find(spec.machine, environ)
    if machine.by_hand:
        raise ConfigurationError(f"{machine.title}: {machine.by_hand}")
    _check_fit(spec, machine)
    if spec.system not in ("", machine.job.get("system", "")):
        # Its queues and options are words of its own batch system.
        machine = machine._replace(job={}, requires=(), gpu_options=())
    filled = _with_defaults(spec, machine)
    missing = [name for name in machine.requires if not getattr(filled, name)]
    if missing:
        options = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise ConfigurationError(f"{machine.title} takes no job without {' and '.join(missing)}: say {options}")
    return filled


def _check_fit(spec: JobSpec, machine: Machine) -> None:
    """Refuse more than a node has."""
    nodes = f"on {machine.title}, whose nodes have {machine.cores} cores for a job"
    if machine.cores and spec.ranks_per_node > machine.cores:
        raise ConfigurationError(
            f"ranks_per_node is {spec.ranks_per_node} {nodes}; legal is a whole number from 1 to {machine.cores}"
        )
    threads = machine.cores * machine.threads_per_core
    if machine.cores and spec.ranks_per_node * spec.cores_per_rank > threads:
        raise ConfigurationError(
            f"{spec.ranks_per_node} ranks of {spec.cores_per_rank} cores each do not fit {nodes} "
            f"({threads} hardware threads); legal for cores_per_rank is at most {threads // spec.ranks_per_node}"
        )
    if machine.cores and spec.gpus_per_node > machine.gpus:
        has = f"at most {machine.gpus}" if machine.gpus else "0"
        raise ConfigurationError(f"gpus_per_node is {spec.gpus_per_node} on {machine.title}; legal is {has}")


def _with_defaults(spec: JobSpec, machine: Machine) -> JobSpec:
    changes: dict[str, Any] = {}
    for field in fields(spec):
        ours, theirs = getattr(spec, field.name), machine.job.get(field.name)
        if theirs is None:
            continue
        if field.name in _ADDED:
            changes[field.name] = ours if ours[: len(theirs)] == theirs else (*theirs, *ours)  # filled already
        elif ours == field.default:
            changes[field.name] = theirs
    own_launcher = changes.get("launcher", spec.launcher) == machine.job.get("launcher")
    if not own_launcher:
        changes.pop("launcher_options", None)
    if machine.cores and not changes.get("cores_per_rank", spec.cores_per_rank):
        counted = machine.cores * (machine.threads_per_core if machine.counts_threads else 1)
        changes["cores_per_rank"] = counted // spec.ranks_per_node
    if own_launcher and changes.get("gpus_per_node", spec.gpus_per_node) and not spec.launcher_options:
        changes["launcher_options"] = (*changes.get("launcher_options", ()), *_gpu_binding(spec, machine))
    try:
        return replace(spec, **changes)
    except ConfigurationError as error:
        raise ConfigurationError(f"with the preset {machine.path}: {error}") from error


def _gpu_binding(spec: JobSpec, machine: Machine) -> tuple[str, ...]:
    if machine.gpu_options and spec.ranks_per_node != machine.gpu_ranks:
        raise ConfigurationError(
            f"ranks_per_node is {spec.ranks_per_node}; the preset of {machine.title} gives GPUs to {machine.gpu_ranks} "
            f"ranks of a node. Say --ranks-per-node {machine.gpu_ranks}, or bind them by --launcher-option"
        )
    return machine.gpu_options
