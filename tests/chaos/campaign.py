"""Lives until the program is done, and runs until enough faults were injected."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import faults, model, schedule, storage, virtual
from .jobs import our_mpiexec
from .ledger import Ledger, journals
from .life import Life
from .table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .jobs import Mpiexec
    from .schedule import Appointment

WORKLOAD = Path(__file__).with_name("workload.py")
#: So many lives without a fault in them that do not end well are a fault of ours.
TRIES = 3
#: Shorter than the defaults, or a fault in MPI_Init and one that shows by silence alone would take minutes.
LIMITS = ("--init-timeout", "30", "--heartbeat-threshold", "6")


class Shape(NamedTuple):
    """How a run is started: so many ranks, tasks, and options of mpiflow."""

    ranks: int
    tasks: int
    options: tuple[str, ...]


def shape(draw: random.Random, tasks: int) -> Shape:
    """Draw one: one and several runners a rank, and tasks in processes of their own."""
    runners = draw.choice((1, 1, 2, 3))
    isolation = draw.choices(("runner", "task"), (4, 1))[0]
    options = ("--runners-per-rank", str(runners), "--isolation", isolation, *LIMITS)
    return Shape(draw.choice((4, 5)), tasks, options)


class Run:
    """One run of the program, resumed until it is done.

    Parameters
    ----------
    seed : str
        All of it follows from this.
    launcher : Mpiexec
        Whose ranks.
    directory : Path
        Where.
    tasks : int
        How many are in the graph.
    table : Table
        What comes of it goes there.
    say : callable
        Is told what happens, a line at a time.
    """

    def __init__(
        self, seed: str, launcher: Mpiexec, directory: Path, tasks: int, table: Table, say: Callable[[str], object]
    ) -> None:
        self.directory = directory
        self.draw = random.Random(f"run {seed}")
        self.shape = shape(self.draw, tasks)
        self.graph_seed = self.draw.randrange(1 << 30)
        self._expected = model.expected(model.graph(self.graph_seed, tasks))
        #: The command line that starts so many ranks, up to the program.
        self.started_by = launcher.line
        self.table = table
        self.say = say
        self._lives = 0
        self.cut = False
        self.failures: list[str] = []

    def line(self) -> list[str]:
        """The command, the same for each life."""
        words = [sys.executable, "-m", "mpiflow", "--no-progress", *self.shape.options, str(WORKLOAD)]
        return [*self.started_by(self.shape.ranks), *words, str(self.graph_seed), str(self.shape.tasks)]

    def go(self, coming: Iterator[Appointment], most: int) -> int:
        """Live until the program is done, under at most so many faults; how many came."""
        injected = spared = 0
        while True:
            life = self.live(coming, most - injected)
            injected += len(life.injected)
            done = self.judge(life)
            spared = 0 if life.injected else spared + 1
            if done or self.failures:
                break
            if spared >= TRIES:
                self.fail("wrong", "", f"{TRIES} lives without a fault did not end well: {_tail(life.err)}")
                break
        if not self.failures:
            self.check_ledger()
        return injected

    def start(self) -> Life:
        """Begin the next life."""
        self._lives += 1
        return Life(self.directory, str(self._lives - 1), self.line())

    def live(self, coming: Iterator[Appointment], most: int) -> Life:
        """Live once, under at most so many faults."""
        life = self.start()
        try:
            life.endure(coming, most, self.draw)
        except BaseException:
            life.kill()
            raise
        return life

    def judge(self, life: Life, fault: str = "") -> bool:
        """Enter what came of a life; whether the program is done.

        Parameters
        ----------
        life : Life
            One that has ended.
        fault : str
            What came to it otherwise than by the schedule; whoever injected it enters it.
        """
        code = life.process.wait()
        for words in life.log:
            self.say(words)
        self.say(f"{life.seconds:7.2f} s  ended with {code}")
        names = [one.fault.name for one in life.injected]
        last = names[-1] if names else fault
        printed = life.out.strip()
        done = code == 0 and printed.startswith("checksum")
        for one in life.injected[: None if done else -1]:
            self.table.survived(one.fault.name)
        if not done and names:
            self.table.ended(last)
            if faults.FAULTS[last].live and not life.hung:
                self.fail("died", last, f"the job did not live on: code {code}\n{_tail(life.err)}")
        if life.hung:
            self.fail("hangs", last, f"nothing happened any more; see {self.directory}")
        elif code == 0 and not done:
            self.fail("wrong", last, f"it ended with 0 and without a checksum: {printed!r}\n{_tail(life.err)}")
        elif done and printed != f"checksum {self._expected}":
            self.fail("wrong", last, f"{printed}, and the checksum is {self._expected}")
        early = bool(life.injected) and life.injected[-1].fault.early
        for left in life.left_behind():
            if early and left.startswith("shared memory"):
                # MPI's own, from within MPI_Init: nothing of ours runs yet that could know of it.
                self.say(f"           not counted: {left}")
            else:
                self.fail("left", last, f"left behind: {left}", stop=False)
        if life.injected and life.injected[-1].fault.cuts:
            self.cut = True
            self.say(f"           {faults.cut(list(journals(self.directory / 'runinfo')), self.draw)}")
        return done

    def check_ledger(self) -> None:
        """Hold the notes of the run against what has to be true of them."""
        ledger = Ledger(self.directory)
        last = self.table.last
        for words in ledger.lost(self.cut):
            self.fail("lost", last, words)
        for words in ledger.computed_again() + ledger.used_twice(self.cut):
            self.fail("wrong", last, words)

    def fail(self, column: str, fault: str, words: str, stop: bool = True) -> None:
        """Enter something that must not happen; unless told otherwise the run is over."""
        self.table.failed(column, fault)
        self.say(f"!! {column} after {fault or 'no fault'}: {words}")
        if stop:
            self.failures.append(words)


def campaign(
    *,
    seed: int,
    most: int,
    tasks: int,
    only: Sequence[str] = (),
    launcher: Mpiexec | None = None,
    keep: Path | None = None,
    say: Callable[[str], object] = print,
) -> Table:
    """Run until so many faults were injected.

    Parameters
    ----------
    seed : int
        All of it follows from this.
    most : int
        How many faults.
    tasks : int
        How many tasks a run has.
    only : sequence of str
        Names of faults; none: all.
    launcher : Mpiexec, optional
        Whose ranks; default: of this interpreter.
    keep : Path, optional
        Where runs that failed are kept; default: a temporary directory.
    say : callable
        Is told what happens, a line at a time.

    Returns
    -------
    Table
        What came of it.

    Raises
    ------
    RuntimeError
        There is no launcher.
    """
    launcher = launcher or our_mpiexec()
    if launcher is None:
        raise RuntimeError("no mpiexec of MPICH or Open MPI beside this interpreter or on PATH")
    mpi = "mpich" if launcher.flavour == "hydra" else "openmpi"
    table = Table(mpi)
    drawn = schedule.legal(only, mpi)
    base = keep or Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    special = [(storage.NAMES, _on_bad_storage), (virtual.FAULTS, _on_hosts)]
    for names, run_under in special:
        wanted = [name for name in names if not only or name in only]
        if wanted:
            run_under(wanted, seed, launcher, base, table, say)
    for number in itertools.count():
        if table.injected >= most or not drawn:
            break
        name = f"{seed}.{number}"
        run = _made(name, launcher, base, tasks, table, say)
        came = run.go(schedule.appointments(name, drawn), most - table.injected)
        if not run.failures:
            shutil.rmtree(run.directory)
        if not came and not run.failures and table.injected < most:
            say("no fault came in this run: it is too short")
    if not any(base.iterdir()):
        base.rmdir()
    return table


def _on_bad_storage(
    wanted: list[str], seed: int, launcher: Mpiexec, base: Path, table: Table, say: Callable[[str], object]
) -> None:
    run = _made(f"{seed}.storage", launcher, base, 400, table, say)
    if reason := storage.unavailable(run.directory):
        say(f"skipped: {', '.join(wanted)}: {reason}")
    else:
        storage.go(run)
    if not run.failures:
        shutil.rmtree(run.directory)


def _on_hosts(
    wanted: list[str], seed: int, launcher: Mpiexec, base: Path, table: Table, say: Callable[[str], object]
) -> None:
    for fault in wanted:
        run = _made(f"{seed}.{fault}", launcher, base, 600, table, say)
        hosts = virtual.Hosts(run.directory / "hosts")
        try:
            if reason := virtual.not_judged(fault, launcher.flavour) or hosts.up():
                say(f"skipped: {fault}: {reason}")
            else:
                virtual.go(run, launcher, hosts, fault)
        finally:
            hosts.down()
        if not run.failures:
            shutil.rmtree(run.directory)


def _made(
    name: str, launcher: Mpiexec, base: Path, tasks: int, table: Table, say: Callable[[str], object]
) -> Run:
    directory = base / name
    directory.mkdir(parents=True)
    run = Run(name, launcher, directory, tasks, table, say)
    say(f"run {name}: {' '.join(run.line())}")
    return run


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
