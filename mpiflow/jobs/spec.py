"""What a job is: which script on how many nodes for how long, and all that a site wants to be told about it.

A `JobSpec` is plain data. It is checked when it is made, so that a wrong number is an error at the prompt and not a
job that the queue refuses after a night. What it leaves open is filled in by `JobSpec.completed`, once it is known
where the job is submitted; from then on it says everything, and `mpiflow.jobs.render` makes a batch script of it
without looking at anything else.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from mpiflow.errors import ConfigurationError
from mpiflow.jobs import launchers, systems
from mpiflow.jobs.quoting import file_name

if TYPE_CHECKING:
    from mpiflow.jobs.job import Job

#: Commands of mpiflow that a job may run in place of a script; a file of such a name is said as ``./batch``.
COMMANDS = ("batch", "doctor")
#: What a mail may be about.
MAIL_EVENTS = ("begin", "end", "fail")
#: What may start containers on the nodes.
RUNTIMES = ("apptainer", "shifter", "podman-hpc")

_MEBIBYTE = 2**20
_AT_LEAST = {
    "nodes": 1, "ranks_per_node": 1, "cores_per_rank": 0, "runners_per_rank": 0, "gpus_per_node": 0, "memory": 0,
    "warn_before": 0, "max_restarts": 0, "chain": 0, "relaunches": 0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A job: one script as one farm, on so many nodes for so long.

    Parameters
    ----------
    script : str
        The Python script, which rank 0 runs; or one of `COMMANDS`, with its words as the arguments.
    arguments : tuple of str
        The script's own arguments.
    system : str
        The batch system: slurm, pbs, torque, cobalt, gridengine, htcondor, lsf, flux or fork (none, on this machine).
        Empty: the one that is found on PATH.
    launcher : str
        What starts the ranks; see `mpiflow.jobs.launchers`. Empty: the usual one of the batch system.
    wrapper : str
        For ``launcher="wrapped"``: the words that are put before the command.
    nodes, ranks_per_node : int
        How many nodes, and how many ranks on each; rank 0 is one of them.
    cores_per_rank, runners_per_rank : int
        Cores for each rank, and tasks that a rank runs at once. 0: not said.
    time : int, optional
        Seconds that the job may take; `mpiflow.jobs.systems.parse_time` reads them from text.
    name : str
        The job's name; empty: that of the script.
    account, queue, qos, reservation, constraint, licenses, place, filesystems : str
        What the site wants to be told; ``queue`` is the partition of Slurm.
    gpus_per_node, memory : int
        GPUs, and bytes of memory, of each node. 0: not said.
    exclusive : bool
        No other job on these nodes.
    mail, mail_events : str
        An address, and what it hears of: some of begin, end, fail, with commas.
    pe : str
        Grid Engine's parallel environment.
    output : str
        Directory of the outputs; empty: ``runinfo/jobs`` in the job's directory.
    directives : tuple of str
        Lines for the batch system, as they are, without its ``#SBATCH`` or the like.
    setup, modules : tuple of str
        Shell files to source, and modules to load, before anything else.
    venv, conda : str
        A virtual environment, by its directory; an environment of conda, by name or directory.
    container, container_runtime : str
        An image in which all ranks run, and what runs it: apptainer, shifter or podman-hpc.
    stage_env : str
        An archive with an environment, unpacked on each node before the run (``mpiflow stage``).
    python : str
        The interpreter on the nodes; empty: that of the venv, the conda environment, or this one.
    farm_options, launcher_options : tuple of str
        More options of ``python -m mpiflow`` and of the launcher.
    warn_before : int
        Seconds before the end of the time at which the job is told.
    max_restarts : int
        How often the job goes on after its time was over.
    chain : int
        Submit so many links beforehand instead, for sites whose jobs may not submit.
    relaunches : int
        How often a farm that died is started again inside the job.
    array : str
        Run the script as an array of jobs, such as "0-9" or "1-100%10".
    machine : str
        The preset that this came from.
    template : str
        A template of one's own, or a directory with some, which go before those of the package. Empty:
        ``~/.config/mpiflow/jobscripts``, where that is.
    directory : str
        Where the script runs; empty: the current directory.

    Raises
    ------
    ConfigurationError
        Naming the field, what it is and what is legal.

    Examples
    --------
    >>> spec = JobSpec(script="sweep.py", nodes=4, ranks_per_node=64, time=7200, system="slurm", account="m1234")
    >>> spec.ranks
    256
    """

    script: str
    arguments: tuple[str, ...] = ()
    system: str = ""
    launcher: str = ""
    wrapper: str = ""
    nodes: int = 1
    ranks_per_node: int = 1
    cores_per_rank: int = 0
    runners_per_rank: int = 0
    time: int | None = None
    name: str = ""
    account: str = ""
    queue: str = ""
    qos: str = ""
    reservation: str = ""
    constraint: str = ""
    licenses: str = ""
    place: str = ""
    filesystems: str = ""
    gpus_per_node: int = 0
    memory: int = 0
    exclusive: bool = False
    mail: str = ""
    mail_events: str = "end,fail"
    pe: str = ""
    output: str = ""
    directives: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    venv: str = ""
    conda: str = ""
    container: str = ""
    container_runtime: str = "apptainer"
    stage_env: str = ""
    python: str = ""
    farm_options: tuple[str, ...] = ()
    launcher_options: tuple[str, ...] = ()
    warn_before: int = 120
    max_restarts: int = 10
    chain: int = 0
    relaunches: int = 3
    array: str = ""
    machine: str = ""
    template: str = ""
    directory: str = ""

    def __post_init__(self) -> None:
        self._check_types()
        if not self.script:
            raise _wrong("script", self.script, "the path of a Python script")
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise _wrong(name, getattr(self, name), f"a whole number from {least} up")
        if self.time is not None and self.time < 1:
            raise _wrong("time", self.time, "a number of seconds from 1 up")
        if 0 < self.memory < _MEBIBYTE:  # batch systems count in these, and some take 0 of them for all there is
            raise _wrong("memory", self.memory, f"a number of bytes from {_MEBIBYTE} up, or 0")
        self._check_choices()
        self._check_together()

    def _check_types(self) -> None:
        """A number is a number and a text a text: "many" nodes are found here, and a bool is no number."""
        for field in fields(self):
            value = getattr(self, field.name)
            kind = str(field.type)
            if kind == "str" and not isinstance(value, str):
                raise _wrong(field.name, value, "a text")
            if kind == "bool" and not isinstance(value, bool):
                raise _wrong(field.name, value, "True or False")
            whole = isinstance(value, int) and not isinstance(value, bool)
            if kind.startswith("int") and not whole and not (value is None and kind == "int | None"):
                least = f" from {_AT_LEAST.get(field.name, 1)} up"
                raise _wrong(field.name, value, f"a whole number{least}")
            if kind.startswith("tuple"):
                ordered = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)
                words = tuple(value) if ordered else (None,)
                if not all(isinstance(word, str) for word in words):
                    raise _wrong(field.name, words if ordered else value, "a tuple of texts")
                object.__setattr__(self, field.name, words)
                value = " ".join(words)
            if isinstance(value, str) and "\0" in value:
                raise _wrong(field.name, value, "a text without NUL: no command line can hold one")

    def _check_choices(self) -> None:
        if self.system:
            systems.find(self.system)
        if self.launcher:
            launchers.find(self.launcher)
        if self.container_runtime not in RUNTIMES:
            raise _wrong("container_runtime", self.container_runtime, ", ".join(RUNTIMES))
        events = self.mail_events.split(",") if self.mail_events else []
        if any(event not in MAIL_EVENTS for event in events):
            raise _wrong("mail_events", self.mail_events, f"some of {', '.join(MAIL_EVENTS)}, with commas between them")
        if self.array and not re.fullmatch(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%[1-9]\d*)?", self.array, re.ASCII):
            raise _wrong("array", self.array, "numbers such as 0-9, 1,3,7 or 1-100%10")

    def _check_together(self) -> None:
        if self.array and self.script in COMMANDS:
            raise _wrong("array", self.array, f"nothing: {self.script} is one job")
        if self.time is not None and self.warn_before >= self.time:
            raise _wrong("warn_before", self.warn_before, f"a number of seconds below the {self.time} s of the job")
        if self.launcher == "wrapped" and not self.wrapper.strip():
            raise _wrong("wrapper", self.wrapper, 'the words before the command, such as "mpiexec -n 8"')
        if self.wrapper and self.launcher != "wrapped":
            raise _wrong("wrapper", self.wrapper, 'nothing, unless launcher is "wrapped"')
        said = [name for name in ("venv", "conda", "container", "stage_env") if getattr(self, name)]
        if len(said) > 1:
            raise ConfigurationError(f"{' and '.join(said)}: legal is one of them")
        if self.system and self.launcher:
            launchers.check(self.system, self.launcher)
        if self.chain and self.array:
            raise ConfigurationError("chain and array: legal is one of them; a chain continues one job")
        for field in ("system", "launcher"):
            if getattr(self, field) == "fork" and self.nodes > 1:
                raise _wrong("nodes", self.nodes, f'1, because {field} is "fork": all ranks are on one machine')

    @property
    def ranks(self) -> int:
        """How many ranks there are in all."""
        return self.nodes * self.ranks_per_node

    def completed(self, system: str = "") -> JobSpec:
        """Give the same job with everything filled in that this machine, directory and interpreter decide.

        Parameters
        ----------
        system : str
            The batch system that was found, for a spec that names none.

        Raises
        ------
        ConfigurationError
            No batch system is known, or the launcher makes no sense there.
        """
        name = self.system or system
        if not name:
            raise _wrong("system", name, ", ".join(systems.SYSTEMS))
        directory = os.path.abspath(self.directory or os.getcwd())
        python = self.python or self._usual_python(directory)
        stem = os.path.splitext(os.path.basename(self.script))[0]
        return replace(
            self,
            system=name,
            launcher=self.launcher or launchers.default(name, self.nodes),
            directory=directory,
            output=os.path.join(directory, self.output or os.path.join("runinfo", "jobs")),
            python=python,
            name=self.name or file_name(stem),
            template=self.template or _own_templates(),
        )

    def _usual_python(self, directory: str) -> str:
        if self.venv:
            return os.path.normpath(os.path.join(directory, self.venv, "bin", "python"))
        return "python" if self.conda else sys.executable

    def render(self) -> str:
        """The batch script.

        Raises
        ------
        ConfigurationError
            Something in it cannot be said to this batch system; naming what, and what can.
        """
        from mpiflow.jobs.detect import find_system
        from mpiflow.jobs.presets import fill
        from mpiflow.jobs.render import render

        spec = fill(self)
        return render(spec.completed(spec.system or find_system()))

    def submit(self) -> Job:
        """Submit it.

        Returns
        -------
        Job
            The job in the queue.
        """
        from mpiflow.jobs.submit import submit

        return submit(self)


def _own_templates() -> str:
    """The directory with the user's own templates, where there is one."""
    settings = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    place = os.path.join(settings, "mpiflow", "jobscripts")
    return place if os.path.isdir(place) else ""


def _wrong(field: str, value: object, legal: str) -> ConfigurationError:
    return ConfigurationError(f"{field} is {value!r}; legal is {legal}")


_MEMORY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_memory(text: str) -> int:
    """Read ``--memory``; gives bytes.

    Parameters
    ----------
    text : str
        A number with a unit, such as "512M" or "64GB"; all units are powers of 1024, as batch systems take them.

    Raises
    ------
    ConfigurationError
        It is none.

    Examples
    --------
    >>> parse_memory("64G") == 64 * 2**30
    True
    """
    found = re.fullmatch(r"(\d+)\s*([kmgt])(?:i?b)?", text.strip().lower(), re.ASCII)
    if found is None or int(found[1]) == 0:
        raise _wrong("memory", text, "a number with a unit, such as 512M or 64G")
    return int(found[1]) * _MEMORY[found[2]]
