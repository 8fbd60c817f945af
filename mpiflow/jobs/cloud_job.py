"""A job as the documents of clouds want it: the lines of shell that run it, and what is mounted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mpiflow.jobs.spec import COMMANDS

if TYPE_CHECKING:
    from mpiflow.jobs.spec import JobSpec


class Volume(NamedTuple):
    """A file system that all machines of a job share.

    Attributes
    ----------
    what, where : str
        What the cloud calls it, and where it is mounted.
    """

    what: str
    where: str


class CloudJob(NamedTuple):
    """A job, checked.

    Attributes
    ----------
    spec : JobSpec
        What was asked for.
    name : str
        A name that the cloud takes.
    mpi : str
        Whose mpiexec is in the image: hydra or openmpi.
    volumes : tuple of Volume
        What is mounted.
    directory : str
        Where the script runs; empty: wherever the image begins.
    """

    spec: JobSpec
    name: str
    mpi: str
    volumes: tuple[Volume, ...]
    directory: str

    @property
    def cores(self) -> int:
        """Cores of each machine."""
        return self.spec.ranks_per_node * max(self.spec.cores_per_rank, 1)

    @property
    def memory(self) -> int:
        """Memory of each machine in MiB; 0: not said."""
        return -(-self.spec.memory // 2**20)


def first_lines(spec: JobSpec) -> list[str]:
    """The lines of shell with which a machine begins: they note when the time of this attempt is over.

    A number of seconds would not do: for a farm that is started again, it would begin again.
    """
    if spec.time is None:
        return []
    return [f'over=$(date -u -d "@$(($(date +%s) + {spec.time}))" +%FT%T+00:00)']


def lines(job: CloudJob, hosts: str, environment: Sequence[str] = ()) -> list[str]:
    """The lines of shell that check the machines and run the farm; the last one becomes the farm's supervisor.

    They stand behind those of `first_lines`.

    Parameters
    ----------
    job : CloudJob
        The job.
    hosts : str
        The file with the hosts, as a word of the shell.
    environment : sequence of str
        Lines that set up the environment, in the job's directory.
    """
    spec = job.spec
    python = shlex.quote(spec.python or "python3")
    launch = _launcher(job, hosts)
    script = spec.script
    if script not in COMMANDS and (script.startswith("-") or ("/" not in script and not script.endswith(".py"))):
        script = f"./{script}"  # else it would be taken for an option or a command of mpiflow
    options = [*_told_deadline(spec), _words([*_farm_options(spec), script, *spec.arguments])]
    farm = f"{python} -m mpiflow {' '.join(options)}"
    made = [f"cd -- {shlex.quote(job.directory)} || exit"] if job.directory else []
    return [
        *made,
        *environment,
        f"{launch} {python} -m mpiflow doctor --quick </dev/null",
        "code=$?",
        '[ "$code" -le 1 ] || exit "$code"  # 1: not as it should be, and no reason not to run',
        f"exec {python} -m mpiflow supervise --relaunches {spec.relaunches} -- {launch} {farm}",
    ]


def _launcher(job: CloudJob, hosts: str) -> str:
    spec = job.spec
    if job.mpi == "hydra":
        line = f"mpiexec -f {hosts} -n {spec.ranks} -ppn {spec.ranks_per_node}"
    else:
        # root is who a container runs as; binding would put all runners of a rank on one core; not every hostfile says
        # how many slots a host has
        line = (
            f"mpiexec --allow-run-as-root --hostfile {hosts} -n {spec.ranks} "
            f"--map-by ppr:{spec.ranks_per_node}:node:OVERSUBSCRIBE --bind-to none"
        )
    return f"{line} {_words(spec.launcher_options)}".rstrip()


def _told_deadline(spec: JobSpec) -> list[str]:
    """No batch system can be asked when the time is over: the farm is told, by words of the shell."""
    if spec.time is None:
        return []
    return ['--deadline "$over"', *([f"--drain-before {spec.warn_before}"] if spec.warn_before else [])]


def _farm_options(spec: JobSpec) -> list[str]:
    options = ["--runners-per-rank", str(spec.runners_per_rank)] if spec.runners_per_rank else []
    return [*options, *spec.farm_options]


def _words(words: Sequence[str]) -> str:
    return " ".join(map(shlex.quote, words))
