"""Ctrl-C and a batch system's request to leave, while tasks run."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]

#: Tasks run in runners, and below one of them a process tree of its own; the script waits for all.
BUSY = """
    import sys, time, mpiflow

    @mpiflow.bash_app
    def tree():
        return "sleep 600 & setsid sleep 600 & sleep 600"

    sleep = mpiflow.python_app(time.sleep)
    started = mpiflow.python_app(abs)(-1)
    futures = [tree(), *[sleep(600) for _ in range(3)]]
    started.result()
    time.sleep(0.5)
    try:
        print("busy", flush=True)
        for future in futures:
            future.result()
    except KeyboardInterrupt:
        print("told", flush=True)
        raise
    finally:
        print("tidied", flush=True)
"""
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("form", ["mpiexec", "own", "lone"])
def test_signal_to_the_first_process_ends_the_job(
    jobs: Jobs, form: Form, number: signal.Signals, launcher: Mpiexec
) -> None:
    """The script tidies up, the code names the signal, and nothing goes on.

    Open MPI's own mpiexec kills the ranks half a second after either signal and ends with 1.
    """
    running = jobs.start(BUSY, form=form).shows("busy")
    running.process.send_signal(number)
    ended = running.wait(20)
    assert jobs.left_behind(3.0) == []
    if form == "mpiexec" and launcher.flavour == "openmpi":
        assert ended.code in (1, SIGNALS[number]), str(ended)
        return
    assert ended.code == SIGNALS[number], str(ended)
    told = "told\n" if number == signal.SIGINT or form == "own" else ""
    # hydra has a word of its own for Ctrl-C
    own = "".join(line for line in ended.out.splitlines(True) if not line.startswith("[mpiexec@"))
    assert own == f"busy\n{told}tidied\n"
    assert "Traceback" not in ended.err, str(ended)
    if form == "own":
        assert ended.err == "mpiflow: interrupted\n"


@pytest.mark.parametrize(("form", "isolation"), [("mpiexec", "runner"), ("mpiexec", "rank"), ("own", "runner")])
def test_nothing_outlives_a_launcher_that_is_killed(jobs: Jobs, form: Form, isolation: str) -> None:
    """As a batch system does at the end of its patience, or the kernel when memory runs out."""
    script = """
        import time, mpiflow
        sleep = mpiflow.python_app(time.sleep)
        sleep(0).result()
        futures = [sleep(600) for _ in range(4)]
        time.sleep(0.3)
        print("busy", flush=True)
        futures[0].result()
    """
    running = jobs.start(script, form=form, options=["--isolation", isolation]).shows("busy")
    running.process.kill()
    running.wait(10)
    assert jobs.left_behind(8.0) == []


def test_ctrl_c_on_a_terminal(jobs: Jobs) -> None:
    """Typed, it reaches the whole foreground group at once; it counts once."""
    controller, terminal = os.openpty()
    try:
        running = jobs.start(BUSY, form="own", terminal=terminal).shows("busy")
        os.write(controller, b"\x03")
        ended = running.wait(20)
    finally:
        os.close(terminal)
        os.close(controller)
    assert ended.code == 130, str(ended)
    assert ended.out == "busy\ntold\ntidied\n"
    assert ended.err == "mpiflow: interrupted\n"


def test_interrupt_may_be_caught_and_the_farm_goes_on(jobs: Jobs) -> None:
    """A Ctrl-C in ``result()`` is an exception of the script's: it may wait again for the same future."""
    script = """
        import time, mpiflow
        slow = mpiflow.python_app(time.sleep)(1.5)
        try:
            print("busy", flush=True)
            slow.result()
        except KeyboardInterrupt:
            print("caught")
        print(slow.result(), mpiflow.python_app(abs)(-3).result())
    """
    running = jobs.start(script, form="own").shows("busy")
    running.process.send_signal(signal.SIGINT)
    ended = running.wait(20)
    assert ended.out == "busy\ncaught\nNone 3\n", str(ended)
    assert ended.code == 0, str(ended)


def test_signals_of_the_batch_system_do_not_reach_tasks(jobs: Jobs) -> None:
    """USR1 and USR2 are ignored in tasks, in what they exec, and in what that execs."""
    script = """
        import os, signal, subprocess, sys, mpiflow

        @mpiflow.python_app
        def survive():
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR2)
            shell = "kill -USR1 $$; kill -USR2 $$; bash -c 'kill -USR1 $$; kill -USR2 $$; echo inner'; echo outer"
            return subprocess.run(["bash", "-c", shell], capture_output=True, text=True).stdout

        @mpiflow.bash_app
        def survive_too():
            return "kill -USR1 $$; kill -USR2 $$; exit 0"

        assert survive().result() == "inner\\nouter\\n"
        assert survive_too().result() == 0
        print("fine")
    """
    assert jobs.run(script, ranks=2).well() == "fine\n"
