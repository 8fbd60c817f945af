"""Rank 0: the script, and what is round it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from mpiflow.cli.arguments import Arguments, parse, script_arguments
from mpiflow.comm import wire
from mpiflow.executors.fleet import Fleet, install
from mpiflow.executors.local import local_fleet, runner_settings
from mpiflow.executors.options import options
from mpiflow.kernel import loader
from mpiflow.kernel.interrupts import on_interrupt, on_request_to_leave
from mpiflow.monitor.console import Console

if TYPE_CHECKING:
    from mpiflow.comm.launcher import Launched
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.worker.zygote import Zygote

#: Seconds that workers have to leave; one that runs a task in its rank may not hear of it.
LEAVE_WITHIN = 10.0


def run_rank0(
    arguments: list[str], comm: MPIComm, zygote: Zygote, launched: Launched | None, protection: str
) -> int:
    """Take the command line, run the script, let the workers go; the exit code.

    Parameters
    ----------
    arguments : list of str
        The command line after ``-m mpiflow``.
    comm : MPIComm
        The way to the workers.
    zygote : Zygote
        This rank's own; needed only where it is the only one.
    launched, protection
        What the launcher has said, and what it offers against the loss of a rank.
    """
    fleet: Fleet | None = None
    console = Console()
    try:
        parsed = parse(arguments)
        if parsed.command == "doctor":
            from mpiflow.cli.doctor import examine

            return examine(parsed, comm, launched, protection)
        if problem := script_arguments(parsed):
            print(f"mpiflow: {problem}", file=sys.stderr, flush=True)
            return 2
        _set_options(parsed)
        _see_script(parsed)
        if comm.size == 1:
            fleet = local_fleet(zygote)
        else:
            zygote.close()
            fleet = Fleet(comm, runner_settings(in_rank=True), console.printed)
            install(fleet)
        return run_script(parsed)
    except SystemExit as leaving:  # argparse, for an unknown option
        return leaving.code if isinstance(leaving.code, int) else 1
    finally:
        console.tell_left_out()
        if comm.size > 1 and not comm.broken:
            _let_go(comm)


def take_signals(interrupt: str) -> None:
    """Take Ctrl-C as any script does, and SIGTERM as a request to leave.

    Parameters
    ----------
    interrupt : str
        The signal by which a ``python -m mpiflow -n 8`` in front of the launcher passes both on: launchers
        have each their own way of misunderstanding SIGINT. "INT" where there is none in front.
    """
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, on_request_to_leave)
    if interrupt != "INT":
        signal.signal(signal.Signals[f"SIG{interrupt}"], on_interrupt)


def run_alone(parsed: Arguments) -> int:
    """Run the script without MPI, on local runners."""
    take_signals("INT")
    _set_options(parsed)
    _see_script(parsed)
    return run_script(parsed)


def _set_options(parsed: Arguments) -> None:
    options.isolation = parsed.isolation
    options.runners_per_rank = parsed.runners_per_rank
    options.seed = parsed.seed
    options.run_dir = parsed.run_dir
    options.progress = parsed.progress
    options.config_file = parsed.config_file
    options.as_parsl = parsed.as_parsl
    options.trust = parsed.trust
    options.fresh = parsed.fresh
    options.checkpoint_all = parsed.checkpoint_all
    if parsed.as_parsl:
        import mpiflow.parsl

        mpiflow.parsl.install()
    options.started_by_mpiflow = True


def _see_script(parsed: Arguments) -> None:
    """Put the script's directory first on the path, as Python does; workers are told the same."""
    assert parsed.script is not None
    sys.path[0] = os.path.dirname(os.path.abspath(parsed.script))


def run_script(parsed: Arguments) -> int:
    """Run the script as ``__main__`` and end what it has left; the exit code that Python would give."""
    assert parsed.script is not None
    sys.argv = [parsed.script, *parsed.rest]
    module = ModuleType("__main__")
    module.__file__ = os.path.abspath(parsed.script)
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    try:
        code = 0
        exec(_compiled(parsed.script), module.__dict__)
        _join_threads()
    except SystemExit as leaving:
        code = _exit_code(leaving.code)
    except KeyboardInterrupt:
        print("mpiflow: interrupted", file=sys.stderr)
        code = 130
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next  # ours; a syntax error in the script has no others
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 1
    try:
        loader.end_loaded(complain=code == 0)
    except KeyboardInterrupt:
        code = 130
    return code


def _compiled(script: str) -> CodeType:
    import io

    with io.open_code(script) as source:
        return compile(source.read(), script, "exec", dont_inherit=True)  # this module's __future__ is its own


def _exit_code(code: object) -> int:
    """What the shell sees of ``sys.exit(code)``."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _join_threads() -> None:
    """Wait for the script's own threads, as Python does before it exits.

    Those of `concurrent.futures` pools wait for work until Python itself tells them to end.
    """
    from concurrent.futures.thread import _threads_queues as pooled

    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon and thread not in pooled:
            thread.join()


def _let_go(comm: MPIComm) -> None:
    """Tell every worker to leave and wait until each has said that it does.

    One that runs a task in its rank hears of it only afterwards. When it takes too long the job is ended by
    force: a hang would cost more than the launcher's noise.
    """
    for peer in comm.peers:
        comm.send(peer, wire.record(wire.QUIT))
    waited_for = set(comm.peers)
    end = time.monotonic() + LEAVE_WITHIN
    while waited_for:
        for peer, head, _ in comm.poll():
            if any(kind == wire.BYE for _, _, _, _, kind, _, _, _ in wire.records(head)):
                waited_for.discard(peer)
        if time.monotonic() > end:
            ranks = ", ".join(map(str, sorted(waited_for)))
            print(
                f"mpiflow: rank {ranks} did not leave within {LEAVE_WITHIN:g} s (a task runs in the rank "
                "itself?); the job is ended by force",
                file=sys.stderr,
                flush=True,
            )
            comm.abort(1)
        time.sleep(0.0002)
