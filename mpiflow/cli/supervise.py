"""``mpiflow supervise -- mpiexec ... python -m mpiflow script.py``: start the farm again when it dies.

No launcher survives the loss of rank 0 or of itself, and few survive the loss of a node. But the allocation is still
there, and so is the journal of what was done. This process stands in front of the launcher, and starts it again in the
same allocation, without the hosts that failed. It is what a batch script runs.

What ended a job is read from rank 0's own words (`mpiflow.cli.verdict`) before the launcher's exit code, which may
be made up:

=====================================  ================================================================
rank 0 said                            then
=====================================  ================================================================
``ended 86``: the farm asks for it     it is started again
nothing: the job died                  it is started again, without the hosts that no longer answer
``ended`` and any other code           that is the end, and that code: a failing script fails again
=====================================  ================================================================

It gives up with 86 after so many relaunches, when two lives in a row ended within seconds and kept no result, or when
too few hosts are left. After SIGUSR1, the batch system's word that time is nearly over, and while the job is being
drained, it starts nothing again: the code is 85, and the next job goes on from the journal.

Each decision is one line on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from mpiflow.cli import verdict
from mpiflow.cli.attend import REQUESTS, Outcome, exit_code, follow, signals_to_pipe
from mpiflow.cli.launch import Launcher, identify, interrupt_signal
from mpiflow.cli.probe import silent_hosts
from mpiflow.errors import ConfigurationError
from mpiflow.exitcodes import DRAINED, RELAUNCH, WORLDS_OF_ONE
from mpiflow.jobs.hosts import among
from mpiflow.jobs.launcher_options import Dialect
from mpiflow.jobs.launchline import LaunchLine, Shorter

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A life shorter than this many seconds, in which nothing was kept, has made no progress.
SHORT_LIFE = 10.0
#: Seconds before a relaunch: what is left of the ranks ends meanwhile.
PAUSE = 1.0

_DESCRIPTION = "Start a farm, and start it again in the same allocation when it dies."
_EPILOG = """\
example, in a batch script:
  mpiflow supervise -- mpiexec -n 64 python -m mpiflow script.py

exit codes: the script's own; 85 when the job was drained; 86 when it died and was given up
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpiflow supervise: {message}\n{self.format_usage()}", file=sys.stderr, end="")
        sys.exit(2)


class Life(NamedTuple):
    """One run of the launcher: how it ended, how long it took, and whether any result was kept in it."""

    outcome: Outcome
    seconds: float
    kept: bool


def supervise(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns its exit code.

    Parameters
    ----------
    arguments : sequence of str
        The command line after the word ``supervise``.
    """
    options, command = _parse(list(arguments))
    program = shutil.which(command[0])
    if program is None:
        _say(f"{command[0]}: there is no such program")
        return 127
    launcher = _identify(program)
    try:
        line = LaunchLine(command, _dialect(launcher), os.environ)
        with _scratch() as scratch:
            return _Supervisor(line, launcher, options.relaunches, options.leave_out, Path(scratch)).run()
    except ConfigurationError as error:
        _say(str(error))
    except OSError as error:
        _say(f"{error.filename or command[0]}: {error.strerror}")
    return 2


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A directory for what rank 0 has to say: below the current one, since all nodes see that."""
    here = "the current directory"
    try:
        directory = os.getcwd()
        here += f", {directory},"
        return tempfile.TemporaryDirectory(prefix=".mpiflow-supervise-", dir=directory)
    except OSError as error:
        words = f"{here} cannot be written: {error.strerror}; rank 0 tells there how it ends. "
        raise ConfigurationError(words + "Start it in a directory that you may write and that all nodes see") from error


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _Parser(
        prog="mpiflow supervise",
        usage="mpiflow supervise [--relaunches N] [--leave-out HOST,...] -- LAUNCHER ... python -m mpiflow SCRIPT ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--relaunches", type=_natural, default=3, metavar="N", help="start again at most so often (default 3)"
    )
    parser.add_argument(
        "--leave-out", type=_names, default=[], metavar="HOST,...", help="hosts that are not to be used at all"
    )
    place = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:place])
    command = arguments[place + 1 :]
    if not command:
        parser.error("which launcher? Its command line comes after --")
    return options, command


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a whole number from 0 up")
    return int(text)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if not all(names):
        raise argparse.ArgumentTypeError(f"is {text!r}; legal are names of hosts, with commas between them")
    return names


def _identify(program: str) -> Launcher:
    """Ask whose launcher it is; anything that is none by its name is nobody's."""
    name = os.path.basename(program)
    if name == "srun":
        return Launcher(program, "srun")
    if name.startswith(("mpiexec", "mpirun", "prterun")):
        return identify(program)
    return Launcher(program, "mpiexec")


def _dialect(launcher: Launcher) -> Dialect:
    """Whose options its command line has; Intel's mpiexec is a hydra."""
    dialects: dict[str, Dialect] = {"hydra": "hydra", "intel": "hydra", "openmpi": "openmpi", "srun": "srun"}
    return dialects.get(launcher.flavour, "other")


class _Supervisor:
    """What is known of the job so far, from one life to the next."""

    def __init__(
        self, line: LaunchLine, launcher: Launcher, relaunches: int, left_out: list[str], scratch: Path
    ) -> None:
        self._line = line
        self._launcher = launcher
        self._relaunches = relaunches
        self._left_out = left_out  #: hosts that are not used any longer
        self._scratch = scratch
        self._wakeup, self._door = -1, -1
        self._request: int | None = None  #: a signal that came while no launcher ran

    def run(self) -> int:
        """Live until there is an end; returns the exit code."""
        futile = lives = 0
        line = self._shortened()
        if words := _too_few(self._line, line):
            _say(f"{words}; code {RELAUNCH}")
            return RELAUNCH
        with signals_to_pipe() as (self._wakeup, self._door):
            while True:
                life = self._live(line, lives)
                code, why = judge(life, self._launcher.path)
                if code is not None:
                    if why:
                        _say(why)
                    return code
                futile = futile + 1 if life.seconds < SHORT_LIFE and not life.kept else 0
                words = _given_up(futile, lives, self._relaunches)
                if not words:
                    self._find_failed(life)
                    line = self._shortened()
                    words = _too_few(self._line, line)
                if words:
                    _say(f"{why}; {words}; code {RELAUNCH}")
                    return RELAUNCH
                if self._pause(PAUSE):
                    return self._asked_between(why)
                lives += 1
                _say(f"relaunch {lives} of {self._relaunches}: {why}{self._hosts_in_words()}")

    def _shortened(self) -> Shorter:
        """The command line without the hosts that are not used any longer."""
        return self._line.without(self._left_out, str(self._scratch / "hosts"))

    def _live(self, shorter: Shorter, number: int) -> Life:
        """Start the launcher and follow it to its end."""
        if shorter.hostfile is not None:
            (self._scratch / "hosts").write_text(shorter.hostfile)
        told = self._verdict(number)
        Path(told).touch()
        words = list(shorter.words)
        if self._launcher.flavour == "openmpi":  # hydra and srun pass on the whole environment
            words[1:1] = ["-x", verdict.VARIABLE, "-x", "MPIFLOW_INTERRUPT"]
        before, began = kept(words), time.monotonic()
        outcome = follow(
            words,
            interrupt_signal(self._launcher),
            (self._wakeup, self._door),
            nearby=False,
            verdict_path=told,
        )
        return Life(outcome, time.monotonic() - began, kept(words) > before)

    def _verdict(self, life: int) -> str:
        """A file for each life: what is left of an earlier one may still write to its own."""
        return str(self._scratch / f"verdict-{life}")

    def _find_failed(self, life: Life) -> None:
        """Leave out the hosts that lost a rank, and those that do not answer any longer.

        Where every host has lost a rank, hosts are not to blame, and all are used again.
        """
        used = [host.name for host in self._line.hosts if not among(host.name, self._left_out)]
        lost = [name for name in used if among(name, life.outcome.said.lost)]
        if len(lost) < len(used):
            self._left_out += lost
        rest = [name for name in used if not among(name, self._left_out)]
        if life.outcome.said.ended is None and len(rest) > 1:
            self._left_out += silent_hosts({name: self._line.probe(name) for name in rest}, self._pause)

    def _pause(self, seconds: float) -> bool:
        """Wait for a signal, at most so long; whether one has come that leaves nothing to start."""
        end = time.monotonic() + seconds
        while self._request is None and (rest := end - time.monotonic()) > 0:
            if select.select([self._wakeup], [], [], rest)[0]:
                asked = [n for n in os.read(self._wakeup, 512) if n in REQUESTS or n == signal.SIGUSR1]
                self._request = asked[0] if asked else None
        return self._request is not None

    def _asked_between(self, why: str) -> int:
        """The exit code for a signal that came between two lives."""
        assert self._request is not None
        name = signal.Signals(self._request).name
        code = DRAINED if self._request == signal.SIGUSR1 else 128 + self._request
        _say(f"{why}; no relaunch, because {name} came; code {code}")
        return code

    def _hosts_in_words(self) -> str:
        if not self._left_out:
            return ""
        left = len([host for host in self._line.hosts if not among(host.name, self._left_out)])
        return f"; leaving out {', '.join(self._left_out)}; {left} host{'s' if left != 1 else ''} left"


def judge(life: Life, launcher: str) -> tuple[int | None, str]:
    """Decide whether a life was the last.

    Parameters
    ----------
    life : Life
        How it ended.
    launcher : str
        The program, for words about it.

    Returns
    -------
    code : int or None
        The exit code, or None if the farm is to be started again.
    why : str
        What happened, in words; empty where the script ended well.
    """
    outcome, said = life.outcome, life.outcome.said
    own = outcome.returncode if said.ended is None else said.ended
    name = os.path.basename(launcher)
    if outcome.request is not None:
        code = exit_code(own, outcome.request, forced=outcome.forced)
        return code, f"ended by {signal.Signals(outcome.request).name}; code {code}"
    if said.ended is None and own == WORLDS_OF_ONE:
        return own, f"launcher and MPI library do not fit: no relaunch; code {own}"
    if own == 0 and not said.began:
        return own, f"{name} ended with code 0, and no farm was heard of: does it pass on {verdict.VARIABLE}?"
    if own == RELAUNCH or said.ended is None:
        how = _how_it_ended(outcome, name, life.seconds)
        if outcome.warned:
            return DRAINED, f"{how}; no relaunch, because its time is nearly over; code {DRAINED}"
        if said.draining:
            return DRAINED, f"{how}; no relaunch, because it was being drained; code {DRAINED}"
        return None, how
    if own == DRAINED:
        return own, f"the job was drained: run it again and it goes on; code {own}"
    return own, f"the script ended with code {own}: no relaunch" if own else ""


def _how_it_ended(outcome: Outcome, launcher: str, seconds: float) -> str:
    code = outcome.returncode
    if outcome.said.ended == RELAUNCH:
        return f"the farm asked for it after {seconds:.0f} s"
    if code == RELAUNCH:  # of workers that were left alone
        return f"rank 0 was lost after {seconds:.0f} s"
    words = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    rank0 = "rank 0 had not come to its end" if outcome.said.began else "rank 0 had not begun"
    return f"{launcher} {words} after {seconds:.0f} s, and {rank0}"


def _given_up(futile: int, lives: int, relaunches: int) -> str:
    if futile >= 2:
        return f"given up: twice in a row it died within {SHORT_LIFE:g} s, and no result was kept"
    if lives >= relaunches:
        return f"given up: it was relaunched {lives} time{'s' if lives != 1 else ''}" if lives else "no relaunch"
    return ""


def _too_few(line: LaunchLine, shorter: Shorter) -> str:
    """Why a shorter line is not worth a start; empty when it is."""
    if line.hosts and not shorter.hosts:
        return "no host is left"
    if len(shorter.hosts) < len(line.hosts) and shorter.ranks is not None and shorter.ranks < 2:
        return f"only {shorter.hosts[0].name} is left, with room for rank 0 alone"
    return ""


def kept(words: Sequence[str]) -> int:
    """How many bytes the journals hold that a command line writes: what a relaunch need not do again.

    Parameters
    ----------
    words : sequence of str
        The command line of the launcher.
    """
    run_dirs = list(Path("runinfo").glob("*"))
    run_dirs += [Path(after) for word, after in itertools.pairwise(words) if word == "--run-dir"]
    run_dirs += [Path(word.removeprefix("--run-dir=")) for word in words if word.startswith("--run-dir=")]
    size = 0
    for file in itertools.chain.from_iterable(run.glob("journal/*") for run in run_dirs):
        with contextlib.suppress(FileNotFoundError):  # somebody tidies up
            size += file.stat().st_size
    return size


def _say(words: str) -> None:
    print(f"mpiflow supervise: {words}", file=sys.stderr, flush=True)
