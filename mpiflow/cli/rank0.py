"""Rank 0: the script, and what is round it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, NamedTuple

from mpiflow.cli.arguments import Arguments, parse, script_arguments
from mpiflow.cli.boot import PASSED_ON
from mpiflow.cli.ending import know_the_end
from mpiflow.cli.leave import let_go
from mpiflow.cli.protection import in_words as protection_in_words
from mpiflow.cli.protection import warn_unprotected
from mpiflow.cli.tell import TOLD, tell
from mpiflow.cli.watching import watching_script
from mpiflow.errors import FarmLost
from mpiflow.executors.fleet import Fleet, install, installed
from mpiflow.executors.local import local_fleet, runner_settings
from mpiflow.executors.losses import Limits
from mpiflow.executors.options import options
from mpiflow.executors.stacks import answer_stacks
from mpiflow.exitcodes import DRAINED, RELAUNCH
from mpiflow.kernel import drain, loader
from mpiflow.kernel.drain import answer_drain, answer_stop, job
from mpiflow.kernel.interrupts import hear_warnings, on_interrupt, on_request_to_leave
from mpiflow.monitor.console import Console
from mpiflow.monitor.requests import answers

if TYPE_CHECKING:
    from mpiflow.cli.verdict import Verdict
    from mpiflow.comm.launcher import Launched
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.worker.zygote import Zygote

#: Signs of life that fit into the silence after which a worker is lost.
BEATS = 7.5


class Job(NamedTuple):
    """What the first seconds of rank 0 have found.

    Attributes
    ----------
    comm : MPIComm
        The way to the workers.
    zygote : Zygote
        This rank's own; needed for tasks only where it is the only one.
    launched : Launched or None
        What the launcher has said.
    protection : {"ULFM", "guardian", ""}
        What the launch offers against the loss of a rank.
    verdict : Verdict
        Where hosts are named that are not to be used again.
    nearby : dict
        The ranks of this node, and their process ids.
    """

    comm: MPIComm
    zygote: Zygote
    launched: Launched | None
    protection: str
    verdict: Verdict
    nearby: dict[int, int]


def run_rank0(arguments: list[str], job: Job) -> int:
    """Take the command line, run the script, let the workers go; the exit code.

    Parameters
    ----------
    arguments : list of str
        The command line after ``-m mpiflow``.
    job : Job
        What there is to run it with.
    """
    console = Console()
    drain.job.told = job.verdict.draining
    code = 1
    try:
        code = _run(arguments, job, console)
    except SystemExit as leaving:  # argparse, for an unknown option
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # an error of ours, and even so the workers must be let go, and MPI ended
        sys.excepthook(*sys.exc_info())
        code = 1
    console.tell_left_out()
    if job.comm.size > 1:
        _hear_no_more()
        let_go(job, installed(), code)
    return code


def _run(arguments: list[str], job: Job, console: Console) -> int:
    parsed = parse(arguments)
    if parsed.command == "doctor":
        from mpiflow.cli.doctor import examine

        return examine(parsed, job.comm, job.launched, job.protection)
    if parsed.command in TOLD:
        return tell(parsed)
    if problem := script_arguments(parsed):
        print(f"mpiflow: {problem}", file=sys.stderr, flush=True)
        return 2
    _set_options(parsed)
    _see_script(parsed)
    if job.comm.size == 1:
        local_fleet(job.zygote)
    else:
        if job.protection == "guardian":
            job.zygote.close()
        else:
            job.zygote.watch_rank()  # nobody else would see that this rank has been stopped for good
        install(_fleet(job, parsed, console))
        _tell_launch(job.comm.size, job.launched, job.protection)
        with watching_script(options.stall_warning):
            return run_script(parsed)
    return run_script(parsed)


def _fleet(job: Job, parsed: Arguments, console: Console) -> Fleet:
    """The workers of this job."""
    limits = Limits(parsed.heartbeat_threshold, parsed.report_within, parsed.quarantine_after)
    settings = {**runner_settings(in_rank=True), "heartbeat": limits.silence / BEATS}
    settings["protection"] = job.protection
    fleet = Fleet(job.comm, settings, console.printed, limits, console.say, job.verdict.lost)
    fleet.leaves_notes = job.protection == "guardian"
    return fleet


def take_signals(interrupt: str) -> None:
    """Take Ctrl-C as any script does, SIGTERM as a request to leave, and SIGUSR1 as a warning to do so in time.

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
    hear_warnings(job.warn)


def _hear_no_more() -> None:
    """Take no signals any longer: the job ends within seconds, unless what one raises keeps it from doing so."""
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)


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
    options.stall_warning = parsed.stall_warning
    if parsed.as_parsl:
        import mpiflow.parsl

        mpiflow.parsl.install()
    options.started_by_mpiflow = True
    answers.update(drain=answer_drain, stop=answer_stop)
    know_the_end(parsed)


def _tell_launch(size: int, launched: Launched | None, protection: str) -> None:
    """Note for the log how this job was launched, and say what it lacks."""
    from mpiflow.comm import world

    library, launcher = world.library().name, launched.name if launched else ""
    options.launch = f"{library}, started by {launcher or 'an unknown launcher'}, {size} ranks; when a rank dies, "
    options.launch += protection_in_words(protection)
    warn_unprotected(protection, library, launcher, size)


def _see_script(parsed: Arguments) -> None:
    """Put the script's directory first on the path, as Python does; workers are told the same."""
    assert parsed.script is not None
    sys.path[0] = os.path.dirname(os.path.abspath(parsed.script))


def run_script(parsed: Arguments) -> int:
    """Run the script as ``__main__`` and end what it has left; the exit code that Python would give."""
    assert parsed.script is not None
    answers["stacks"] = answer_stacks
    sys.argv = [parsed.script, *parsed.rest]
    module = ModuleType("__main__")
    module.__file__ = os.path.abspath(parsed.script)
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    try:
        code = _end_of_script(parsed.script, module)
    except (KeyboardInterrupt, SystemExit) as leaving:  # a signal, while its own end was being told
        code = _code_of_signal(leaving)
    if job.ended and code == 0:
        code = DRAINED  # the script has caught what told it to leave; its work is not done all the same
    job.over = True
    try:
        loader.end_script(complain=code == 0)
    except (KeyboardInterrupt, SystemExit) as leaving:
        code = _code_of_signal(leaving)
    job.say_ended()
    return code


def _end_of_script(script: str, module: ModuleType) -> int:
    """Run the script to its end, and tell what ended it; the exit code."""
    code = 0
    try:
        exec(_compiled(script), module.__dict__)
        _join_threads()
    except SystemExit as leaving:
        code = _exit_code(leaving.code)
    except KeyboardInterrupt:
        print("mpiflow: interrupted", file=sys.stderr)
        code = 130
    except FarmLost as error:
        print(f"mpiflow: {error}. Run it again, and it takes up what is in its journal.", file=sys.stderr)
        code = DRAINED if job.why else RELAUNCH
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next  # ours; a syntax error in the script has no others
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 1
    return code


def _code_of_signal(leaving: KeyboardInterrupt | SystemExit) -> int:
    """The exit code for what a signal has raised."""
    return 130 if isinstance(leaving, KeyboardInterrupt) else _exit_code(leaving.code)


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
