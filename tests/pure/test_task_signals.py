"""What tasks and the programs they start do about signals, and about a memory that runs out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_pool import Pool
from test_zygote import alive

from mpiflow.comm.wire import OVERTIME
from mpiflow.worker.zygote import exec_zygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(60),
]

_PROGRAM = r"""
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(void)
{
    struct sigaction usr1, usr2;
    sigaction(SIGUSR1, NULL, &usr1);
    sigaction(SIGUSR2, NULL, &usr2);
    raise(SIGUSR1);
    raise(SIGUSR2);
    printf("%d %d\n", usr1.sa_handler == SIG_IGN, usr2.sa_handler == SIG_IGN);
    fflush(stdout);
    sleep(1000);
    return 0;
}
"""
BATCH = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool with one runner."""
    made = Pool(exec_zygote(), 1)
    yield made
    made.pool.close()


def survivor() -> Callable[[list[str], bool], tuple[bool, int]]:
    """A task that signals what it has started, and sees what ends it at last."""

    def start(line: list[str], speaks: bool) -> tuple[bool, int]:
        child = subprocess.Popen(line, stdout=subprocess.PIPE)
        assert child.stdout is not None
        said = not speaks or child.stdout.readline() == b"1 1\n"
        time.sleep(0.3)  # until it is the program, and not the fork that becomes it
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            child.send_signal(number)
            time.sleep(0.05)
        said = said and child.poll() is None
        child.send_signal(signal.SIGTERM)
        return said, child.wait()

    return start


def test_a_running_sleep_ignores_what_batch_systems_send(pool: Pool) -> None:
    assert pool.run(survivor(), ["sleep", "1000"], False) == (True, -signal.SIGTERM)


def test_a_c_program_ignores_what_batch_systems_send(pool: Pool, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) on PATH")
    (tmp_path / "program.c").write_text(_PROGRAM)
    program = str(tmp_path / "program")
    subprocess.run([compiler, "-o", program, program + ".c"], check=True)
    assert pool.run(survivor(), [program], True) == (True, -signal.SIGTERM)


def test_a_task_that_takes_such_a_signal_for_itself_does_not_do_so_for_the_next(pool: Pool) -> None:
    def take() -> None:
        for number in BATCH:
            signal.signal(number, signal.SIG_DFL)

    pool.run(take)
    assert pool.run(survivor(), ["sleep", "1000"], False) == (True, -signal.SIGTERM)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_other_signals_that_launchers_pass_on_end_a_program_as_they_do_anywhere(pool: Pool, number: str) -> None:
    """A rank ignores them; what is below it must not have got that from it."""

    def end(number: str) -> int:
        child = subprocess.Popen(["sleep", "1000"])
        child.send_signal(signal.Signals[number])
        return child.wait()

    assert pool.run(end, number) == -signal.Signals[number]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_a_signal_to_the_group_of_the_rank_does_not_reach_tasks(tmp_path: Path, number: str) -> None:
    script = (
        "import os, signal, sys; from mpiflow.worker.zygote import fork_zygote\n"
        f"sys.path[:0] = [{os.path.dirname(__file__)!r}]\n"
        f"signal.signal(signal.{number}, signal.SIG_IGN)\n"
        "zygote = fork_zygote()\n"
        "from test_pool import Pool\n"
        "pool = Pool(zygote, 1)\n"
        "aid = pool.add(__import__('time').sleep, 0.5)\n"
        "pool.until(lambda: pool.pool._runners[0].pid if pool.pool._runners else 0)\n"
        f"os.killpg(0, signal.{number})\n"
        "pool.all(aid); pool.pool.close(); print('through')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True, timeout=50
    )
    assert ended.stdout == "through\n"


# --- the kernel takes the task, and not the rank ------------------------------------------------------------


def test_memory_of_the_node_runs_out(pool: Pool) -> None:
    """Rather than letting it: what the kernel would take first is the task, and all that the task has started."""

    def look() -> list[str]:
        with open("/proc/self/oom_score_adj") as score:
            own = score.read().strip()
        line = ["cat", "/proc/self/oom_score_adj"]
        child = subprocess.run(line, stdout=subprocess.PIPE, text=True).stdout.strip()
        daemon = subprocess.run(["setsid", "-w", *line], stdout=subprocess.PIPE, text=True).stdout.strip()
        return [own, child, daemon]

    with open("/proc/self/oom_score_adj") as score:
        own = int(score.read())
    with open(f"/proc/{pool.pool._zygote.pid}/oom_score_adj") as score:
        zygotes = int(score.read())
    assert pool.run(look) == ["1000"] * 3
    assert zygotes == own < 1000


# --- no task holds out against its walltime -----------------------------------------------------------------


def _hangs() -> dict[str, Callable[[], None]]:
    def blocks_every_signal() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
        time.sleep(1000)

    def ignores_every_signal() -> None:
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_IGN)
        time.sleep(1000)

    def is_in_c_code() -> None:
        import ctypes

        ctypes.PyDLL(None).sleep(1000)  # PyDLL: no other thread of Python runs meanwhile

    def never_looks_at_signals() -> None:
        sum(iter(int, 1))

    def stops_itself() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def leaves_its_group() -> None:
        os.setpgid(0, os.getsid(0))
        time.sleep(1000)

    return {name: value for name, value in locals().items() if callable(value)}


@pytest.mark.parametrize("how", list(_hangs()))
def test_task_exceeds_its_walltime_and_hangs(pool: Pool, how: str) -> None:
    pid = pool.run(os.getpid)
    hangs, behind = pool.add(_hangs()[how], walltime=0.5), pool.add(divmod, 7, 2)
    assert pool.all(behind) == [(3, 1)]
    assert pool.ended[hangs] == (OVERTIME, None)
    assert not alive(pid)
