"""Hosts that are cut off, healed and powered off: virtual ones, made by ``tests/clusters/netns-up.sh``.

    this machine: the launcher ─▶ n1: rank 0 and a worker    n2: two workers    n3: two workers, and the faults

After ``host-healed`` (a network that was away for a while) and after ``host-cut`` and ``host-off`` (a host that never
comes back) the job may go on, or end and be resumed on the hosts that are left; but it may not stand still, and nothing
may be lost.

Only root may make such hosts, and not everywhere: `Hosts.up` says why it cannot be done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import victims
from .life import GONE_WITHIN, LOOK_EVERY

if TYPE_CHECKING:
    from .campaign import Run
    from .jobs import Mpiexec
    from .life import Life
    from .victims import Process

FAULTS = HEALED, CUT, OFF = "host-healed", "host-cut", "host-off"
NAMES = ("n1", "n2", "n3")
#: Seconds for which the network is away.
AWAY = 3.0
#: Lives on the hosts that are left.
TRIES = 3
#: Results that a script has seen in a life before something happens.
AFTER = 60

_SCRIPTS = Path(__file__).parents[1] / "clusters"


def not_judged(fault: str, flavour: str) -> str:
    """Why a fault is left out with this launcher, whatever the machine allows; empty if it is not."""
    if flavour == "openmpi" and fault != HEALED:
        return "prterun ends with code 0, or never, when it loses a host; what rank 0 does is not seen through it"
    return ""


class Hosts:
    """Virtual hosts.

    Parameters
    ----------
    directory : Path
        For their files. A short path: launchers put sockets below it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Another suite on this machine may have hosts of its own.
        number = os.getpid() % 200
        network = {"BRIDGE": f"chaos{number}", "NET": f"10.79.{number}"}
        self._environment = {**os.environ, "BASE": str(directory), "NODES": str(len(NAMES)), **network}

    def up(self) -> str:
        """Make them; why that cannot be done, or empty."""
        if os.geteuid() != 0:
            return "only root may make virtual hosts"
        done = self._script("netns-up.sh")
        return f"no virtual hosts here: {done.stderr.strip()[-300:]}" if done.returncode else ""

    def down(self) -> None:
        """Remove them."""
        self._script("netns-down.sh")

    def do(self, what: str, name: str) -> None:
        """Cut, heal or power off a host."""
        subprocess.run([self.directory / "bin" / "node", what, name], check=True, timeout=30)

    def line(self, launcher: Mpiexec, names: list[str], ranks_a_host: int) -> list[str]:
        """The command line that starts ranks on some of them, up to the program."""
        ssh, ranks = str(self.directory / "bin" / "ssh"), len(names) * ranks_a_host
        if launcher.flavour == "hydra":
            where = ["-launcher", "ssh", "-launcher-exec", ssh, "-hosts", ",".join(names), "-ppn", str(ranks_a_host)]
        else:
            slots = ",".join(f"{name}:{ranks_a_host}" for name in names)
            where = ["--prtemca", "plm_ssh_agent", ssh, "--host", slots]
            where += ["-x", "PYTHONPATH"] if "PYTHONPATH" in os.environ else []
        return [launcher.path, *launcher.flags, *where, "-n", str(ranks)]

    def processes(self) -> list[Process]:
        """What runs on them, their own first processes left out."""
        found = []
        for file in self.directory.glob("n*/pid"):
            first = victims.look(int(file.read_text()))
            if first is not None:
                found += [p for p in victims.below(first.pid) if victims.command(p.pid) != "sleep 3600"]
        return found

    def left(self) -> list[str]:
        """What still runs on them a while after the end of a job, in words; it is killed."""
        end = time.monotonic() + GONE_WITHIN
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return [f"process {p.pid} (state {p.state}): {victims.command(p.pid)}" for p in left]

    def _script(self, name: str) -> subprocess.CompletedProcess[str]:
        # Not a pipe for its output: what it starts in the background would keep that open.
        with (self.directory.parent / f"{name}.out").open("w+") as out:
            line = ["bash", str(_SCRIPTS / name)]
            done = subprocess.run(line, env=self._environment, stdout=out, stderr=out, timeout=120, check=False)
            out.seek(0)
            return subprocess.CompletedProcess(line, done.returncode, "", out.read())


def go(run: Run, launcher: Mpiexec, hosts: Hosts, fault: str) -> None:
    """A life with the fault, and further ones on the hosts that are left until the program is done."""
    done = _life(run, launcher, hosts, fault, list(NAMES))
    for words in hosts.left():
        run.fail("left", fault, f"left behind on a host: {words}", stop=False)
    for _ in range(TRIES):
        if not done and not run.failures:
            done = _life(run, launcher, hosts, "", list(NAMES[:2]))
    if not done and not run.failures:
        run.fail("wrong", fault, "on the hosts that are left it does not end well")
    run.check_ledger()


def _life(run: Run, launcher: Mpiexec, hosts: Hosts, fault: str, names: list[str]) -> bool:
    run.started_by = lambda ranks: hosts.line(launcher, names, 2)
    life = run.start()
    try:
        if fault:
            _inject(life, hosts, fault)
        life.endure(iter(()), 0, run.draw)
    except BaseException:
        life.kill()
        raise
    if fault == CUT:
        # Nobody can reach it, and nothing of MPI tells it: to end what runs there is the batch system's.
        life.log.append(f"           {len(hosts.left())} processes were still on the host that was cut off")
        hosts.do("heal", "n3")
    done = run.judge(life, fault)
    if fault:
        run.table.survived(fault) if done else run.table.ended(fault)
    return done


def _inject(life: Life, hosts: Hosts, fault: str) -> None:
    base = life.seen()
    while life.goes_on() and life.seen() - base < AFTER:
        time.sleep(LOOK_EVERY)
    life.log.append(f"{life.seconds:7.2f} s  {fault}: n3")
    hosts.do("off" if fault == OFF else "cut", "n3")
    if fault == HEALED:
        end = time.monotonic() + AWAY
        while life.goes_on() and time.monotonic() < end:
            time.sleep(LOOK_EVERY)
        hosts.do("heal", "n3")
