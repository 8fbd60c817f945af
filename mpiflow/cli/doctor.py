"""``mpiflow doctor``: what this MPI, its launcher and its ranks are, and what is wrong with them."""

from __future__ import annotations

import os
import pickle
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import mpiflow
from mpiflow import linux
from mpiflow.cli.protection import how_to_get_it
from mpiflow.cli.protection import in_words as protection_in_words
from mpiflow.comm import wire
from mpiflow.errors import RequestError
from mpiflow.monitor.requests import ask, wait_for_answer

if TYPE_CHECKING:
    from mpiflow.cli.arguments import Arguments
    from mpiflow.comm.launcher import Launched
    from mpiflow.comm.mpi import MPIComm

#: How long ranks have to report, in seconds, and how many round trips are timed.
REPORT_WITHIN, ROUND_TRIPS = 30.0, 200

#: Seconds for the answer of a running job.
STACKS_WITHIN = 15.0
_ABOUT_A_STUCK_RANK_0 = (
    "If it is stuck inside MPI, its guardian ends it, where the launch has one (see mpiflow doctor). What it is at, see"
)


def examine(parsed: Arguments, comm: MPIComm, launched: Launched | None, protection: str) -> int:
    """Look at a running job, on rank 0; 0 when nothing is wrong, else 1."""
    if parsed.stacks is not None:
        return show_stacks(parsed.stacks)
    hellos = _hear_all(comm)
    missing = [rank for rank in comm.peers if rank not in hellos]
    advice = _advice(hellos, missing, _thread_level())
    if parsed.quick:
        state = "well" if not advice else "not well"
        nodes = len({hello["host"] for hello in hellos.values()} | {os.uname().nodename})
        print(f"mpiflow doctor: {state}: {comm.size} ranks in one world on {nodes} nodes")
    else:
        _print_library()
        agrees = "agrees" if launched is None or launched.size in (None, comm.size) else "DISAGREES"
        _line("launcher", f"{launched.name}, {launched.size} ranks, {agrees} with MPI" if launched else "none")
        _line("ranks", f"{comm.size}: rank 0 for the script, {len(comm.peers)} workers")
        for host, ranks in _by_host(hellos).items():
            cpus = sorted({hellos[rank]["cpus"] for rank in ranks})
            _line(f"  {host}", f"{len(ranks)} workers, {' or '.join(map(str, cpus))} CPUs usable by each")
        if hellos:
            _line("round trip", f"{_round_trip(comm, min(hellos)) * 1e6:.0f} µs to rank {min(hellos)} (median)")
        _line("a task dies", "it costs its own process; the rank goes on")
        _line("a rank dies", protection_in_words(protection))
        if not protection and comm.size > 1:
            started = launched.name if launched else ""
            _line("", f"to have one: {how_to_get_it(_library_name(), started, comm.size)}")
    return _say(advice)


def show_stacks(run_dir: str) -> int:
    """Ask a running job what each of its processes is at, and print that; 0 when it has answered, else 1.

    Parameters
    ----------
    run_dir : str
        Its run directory.
    """
    try:
        request = ask(run_dir, "stacks")
    except RequestError as error:
        print(f"mpiflow: {error}", file=sys.stderr)
        return 1
    host, pid = (request.parent / "open").read_text().split()
    try:
        print(wait_for_answer(request, STACKS_WITHIN).strip("\n"))
    except RequestError as error:
        print(f"mpiflow: {error}\n  {_ABOUT_A_STUCK_RANK_0} `py-spy dump --pid {pid}` on {host}", file=sys.stderr)
        return 1
    return 0


def examine_alone(parsed: Arguments) -> int:
    """Look at what is here without a launcher; 0 when nothing is wrong, else 1."""
    from mpiflow.cli.launch import LauncherNotFound, launch_line
    from mpiflow.linux import usable_cpus

    if parsed.stacks is not None:
        return show_stacks(parsed.stacks)
    advice: list[str] = []
    try:
        _print_library()
    except (ImportError, RuntimeError) as error:
        _line("MPI", f"cannot be loaded: {error}")
        advice.append("install an MPI and an mpi4py that fits it (pip install mpiflow[mpich]), or run with -n 1")
    _line("launcher", "none: this process was started by itself")
    try:
        _line("would start", " ".join(launch_line(["python", "-m", "mpiflow", "script.py"])))
    except LauncherNotFound as error:
        advice.append(str(error))
    _line("CPUs usable", str(usable_cpus()))
    return _say(advice)


def _print_library() -> None:
    from mpiflow.comm import world
    from mpiflow.farm import farm

    found = world.library()
    build = "" if farm.__file__.endswith(".py") else ", compiled"
    _line("mpiflow", f"{mpiflow.__version__}{build}, Python {sys.version.split()[0]} ({sys.executable})")
    _line("MPI library", f"{found.name}, MPI standard {found.standard}")
    for path in linux.loaded_libraries("libmpi"):
        _line("", path)
    _line("mpi4py", found.mpi4py)
    _line("thread level", found.thread_level)


def _thread_level() -> str:
    from mpiflow.comm import world

    return world.library().thread_level


def _library_name() -> str:
    from mpiflow.comm import world

    return world.library().name


def _line(what: str, value: str) -> None:
    print(f"{what:<14} {value}")


def _say(advice: list[str]) -> int:
    for word in advice:
        print(f"advice: {word}")
    return 1 if advice else 0


def _hear_all(comm: MPIComm) -> dict[int, dict[str, Any]]:
    """What each worker says of itself."""
    hellos: dict[int, dict[str, Any]] = {}
    end = time.monotonic() + REPORT_WITHIN
    while len(hellos) < len(comm.peers) and time.monotonic() < end:
        for peer, head, _ in comm.poll():
            for _, _, _, _, kind, _, start, stop in wire.records(head):
                if kind == wire.HELLO:
                    hellos[peer] = pickle.loads(memoryview(head)[start:stop])
        time.sleep(0.0005)
    return hellos


def _by_host(hellos: dict[int, dict[str, Any]]) -> dict[str, list[int]]:
    hosts: dict[str, list[int]] = {}
    for rank in sorted(hellos):
        hosts.setdefault(str(hellos[rank]["host"]), []).append(rank)
    return hosts


def _round_trip(comm: MPIComm, peer: int) -> float:
    """Median seconds from a message to its acknowledgement."""
    times: list[float] = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        comm.send(peer, wire.record(wire.PING))
        while not any(message[0] == peer for message in comm.poll()):
            if time.perf_counter() - began > REPORT_WITHIN:
                return float("inf")
        times.append(time.perf_counter() - began)
    return median(times)


def _advice(hellos: dict[int, dict[str, Any]], missing: list[int], thread_level: str) -> list[str]:
    """What is wrong, each with what to do."""
    advice: list[str] = []
    if missing:
        ranks = ", ".join(map(str, missing[:20]))
        advice.append(f"ranks {ranks} have not reported within {REPORT_WITHIN:g} s; look at their nodes")
    if thread_level in ("single", "funneled"):
        advice.append(f"MPI's thread level is {thread_level}: the helper thread needs at least 'serialized'")
    for host, workers in _by_host(hellos).items():
        bound = [worker for worker in workers if hellos[worker]["cpus"] == 1]
        cores = hellos[workers[0]]["cores"]
        if bound and cores > len(workers):
            advice.append(
                f"{host}: each of {len(bound)} workers is bound to one CPU of {cores}; "
                "with several runners per rank say --bind-to none (Open MPI) or -c CPUS (srun)"
            )
    return advice
