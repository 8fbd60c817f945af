"""A real zygote: what it forks, what it reports, and that nothing is left of it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, eventually

from mpiflow.comm import wire
from mpiflow.comm.pickling import pack, pack_function, unpack, unpack_failure
from mpiflow.comm.wire import HEADER, record, records
from mpiflow.linux import memory_file
from mpiflow.worker.zygote import Ended, Zygote, exec_zygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(60),
]


def alive(pid: int) -> bool:
    """Whether a process is there and no mere entry that waits for its parent."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Bare:
    """The worker's ends of one runner, with nothing round them."""

    def __init__(self, zygote: Zygote, **settings: Any) -> None:
        self.fid = 0
        self.records, records = socket.socketpair()
        self.segments, segments = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.output, output = os.pipe()
        known: dict[str, Any] = {"environment": {}, "path": [], "directory": "/", **settings}
        stacks = memory_file(0)
        fds = [records.fileno(), segments.fileno(), output, output, stacks]
        self.request = zygote.spawn(known, fds)
        records.close()
        segments.close()
        os.close(output)
        os.close(stacks)

    def send(self, function: Callable[..., Any], *args: Any) -> None:
        packed = pack(("f", 0, pack_function(function)), [])
        call = pack((args, {}), [])
        self.fid += 1
        learn = record(wire.FUNCTION, packed, fid=self.fid)
        self.records.sendall(learn + record(wire.TASK, call, aid=5, tid=3, fid=self.fid))

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function there; its value, or its exception raised here."""
        self.send(function, *args)
        data = b""
        while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[3]:
            got = self.records.recv(65536)
            if not got:
                raise EOFError("the runner has ended")
            data += got
        ((aid, tid, _, _, kind, _, start, end),) = records(data)
        assert (aid, tid) == (5, 3)
        if kind == wire.RAISED:
            raise unpack_failure(data[start:end], "the task")
        return unpack(data[start:end])

    def close(self) -> None:
        self.records.close()
        self.segments.close()
        os.close(self.output)


def heard(zygote: Zygote, number: int) -> list[tuple[int, int] | Ended]:
    """So many words of the zygote."""
    words: list[tuple[int, int] | Ended] = []

    def enough() -> bool:
        words.extend(zygote.hear())
        return len(words) >= number

    assert eventually(enough)
    return words


def started(zygote: Zygote, bare: Bare) -> int:
    """Process id of a runner whose start has been asked for."""
    ((request, pid),) = heard(zygote, 1)  # type: ignore[misc]
    assert request == bare.request
    return pid


def ended(zygote: Zygote) -> Ended:
    (word,) = heard(zygote, 1)
    assert isinstance(word, Ended)
    return word


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    made = exec_zygote()
    yield made
    made.close()
    assert not alive(made.pid)


@pytest.fixture
def bare(zygote: Zygote) -> Iterator[Bare]:
    """A runner."""
    made = Bare(zygote)
    yield made
    made.close()


def test_a_runner_runs_tasks_one_after_the_other(zygote: Zygote, bare: Bare) -> None:
    pid = started(zygote, bare)
    assert bare.run(os.getpid) == pid
    assert bare.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        bare.run(divmod, 7, 0)
    assert bare.run(os.getpid) == pid


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda: os._exit(0), 0),
        (lambda: os._exit(3), 3),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), -signal.SIGSEGV),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), -signal.SIGTERM),
        (os.abort, -signal.SIGABRT),
    ],
    ids=["exit 0", "exit 3", "killed", "segfault", "terminated", "aborted"],
)
def test_a_death_is_reported_with_its_code_and_what_it_had_used(
    zygote: Zygote, bare: Bare, end: Callable[[], object], code: int
) -> None:
    pid = started(zygote, bare)
    bare.send(end)
    word = ended(zygote)
    assert (word.pid, word.code) == (pid, code)
    assert word.peak > 1000, "KiB"
    assert 0 <= word.cpu < LONG


def test_a_runner_leaves_well_when_its_socket_ends(zygote: Zygote) -> None:
    bare = Bare(zygote)
    pid = started(zygote, bare)
    bare.close()
    word = ended(zygote)
    assert (word.pid, word.code) == (pid, 0)


def test_memory_and_processor_time_of_a_runner_are_its_own(zygote: Zygote, bare: Bare) -> None:
    started(zygote, bare)

    def use() -> None:
        end = time.process_time() + 0.1
        data = bytearray(100 << 20)
        while time.process_time() < end:
            pass
        os._exit(len(data) & 1)

    bare.send(use)
    word = ended(zygote)
    assert word.peak > 100 << 10
    assert 0.1 <= word.cpu < LONG


def test_requests_are_numbered_and_answered_in_order(zygote: Zygote) -> None:
    bares = [Bare(zygote) for _ in range(4)]
    words = heard(zygote, 4)
    assert [request for request, _ in words] == [bare.request for bare in bares] == [1, 2, 3, 4]  # type: ignore[misc]
    assert len({pid for _, pid in words}) == 4  # type: ignore[misc]
    for bare in bares:
        bare.close()


# --- what a runner is like -----------------------------------------------------------------------------


def test_it_has_the_environment_the_path_and_the_directory_it_was_told(zygote: Zygote) -> None:
    bare = Bare(zygote, environment={"OMP_NUM_THREADS": "3"}, path=["/no/such"], directory="/usr")

    def look() -> tuple[object, ...]:
        return os.environ["OMP_NUM_THREADS"], sys.path[0], os.getcwd()

    assert bare.run(look) == ("3", "/no/such", "/usr")
    bare.close()


def test_it_has_lost_what_the_launcher_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "MPIFLOW_INTERRUPT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    zygote = exec_zygote()
    bare = Bare(zygote)

    def look() -> dict[str, str]:
        return {
            name: value for name, value in os.environ.items() if name.startswith(("PMI", "OMPI", "SLURM"))
        }

    assert bare.run(look) == {"SLURM_JOB_ID": "7"}
    bare.close()
    zygote.close()


def test_it_has_no_descriptors_but_its_own(zygote: Zygote, bare: Bare) -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    os.set_inheritable(write, True)

    def look() -> dict[int, str]:
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
            except OSError:  # the one that listed them
                continue
        return found

    found = bare.run(look)
    assert found[0] == "/dev/null"
    kinds = sorted(target.split(":")[0] for fd, target in found.items() if fd)
    expected = ["/memfd"] + ["pipe"] * 4 + ["socket"] * 2
    assert kinds == expected, "for its stacks; two for output, each with a spare; and its two channels"
    os.close(read)
    os.close(write)


def test_it_is_its_own_group_in_a_session_of_its_own_and_first_to_go(zygote: Zygote, bare: Bare) -> None:
    def look() -> tuple[bool, bool, str]:
        with open("/proc/self/oom_score_adj") as score:
            return os.getpgrp() == os.getpid(), os.getsid(0) == os.getppid(), score.read().strip()

    assert bare.run(look) == (True, True, "1000")


def test_it_ignores_what_batch_systems_send_and_so_do_its_commands(zygote: Zygote, bare: Bare) -> None:
    def look() -> tuple[list[bool], str]:
        ignored = [
            signal.getsignal(number) == signal.SIG_IGN
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
        ]
        shell = "kill -USR1 $$; kill -USR2 $$; echo alive"
        return ignored, subprocess.run(["sh", "-c", shell], stdout=subprocess.PIPE, text=True).stdout

    assert bare.run(look) == ([True, True, False, False], "alive\n")


def test_runners_draw_different_random_numbers(zygote: Zygote) -> None:
    bares = [Bare(zygote) for _ in range(3)]

    def draw() -> tuple[float, float]:
        import random

        try:
            import numpy
        except ImportError:
            return random.random(), random.random()
        return random.random(), float(numpy.random.random())

    drawn = [number for bare in bares for number in bare.run(draw)]
    assert len(set(drawn)) == 6
    for bare in bares:
        bare.close()


# --- the end -------------------------------------------------------------------------------------------


def leave_orphans(path: str = "") -> Callable[[], list[int]]:
    """A task that starts what could outlive it: in a session of its own, in its group, an orphan, and a daemon.

    With a path it writes their process ids there, and does not end.
    """

    def leave() -> list[int]:
        own_session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        same_group = subprocess.Popen(["sleep", "1000"])
        shells = ["sleep 1000 >/dev/null 2>&1 & echo $!", "setsid sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'"]
        orphans = [int(subprocess.run(["sh", "-c", shell], stdout=subprocess.PIPE).stdout) for shell in shells]
        pids = [own_session.pid, same_group.pid, *orphans]
        if path:
            with open(path + ".new", "w") as file:
                print(*pids, file=file)
            os.rename(path + ".new", path)
            time.sleep(1000)
        return pids

    return leave


def written(path: Path) -> list[int]:
    """Process ids that a task of `leave_orphans` has written."""
    assert eventually(path.exists)
    return [int(pid) for pid in path.read_text().split()]


def test_closing_it_leaves_nothing_of_what_it_and_its_runners_started(tmp_path: Path) -> None:
    zygote = exec_zygote()
    bare = Bare(zygote)
    pids = [started(zygote, bare), zygote.pid]
    bare.send(leave_orphans(str(tmp_path / "pids")))
    pids += written(tmp_path / "pids")
    assert all(alive(pid) for pid in pids)
    zygote.close()
    assert eventually(lambda: not any(alive(pid) for pid in pids))
    bare.close()
    zygote.close()


def test_a_task_that_ends_leaves_nothing_running(zygote: Zygote, bare: Bare) -> None:
    runner = started(zygote, bare)
    pids = bare.run(leave_orphans())
    assert len(pids) == 4
    assert not any(alive(pid) for pid in pids), "before its result is sent"
    assert bare.run(os.getpid) == runner, "and its runner goes on"


def test_a_runner_that_dies_leaves_nothing_running(zygote: Zygote, bare: Bare, tmp_path: Path) -> None:
    runner = started(zygote, bare)
    bare.send(leave_orphans(str(tmp_path / "pids")))
    pids = written(tmp_path / "pids")
    other = Bare(zygote)
    other_runner = started(zygote, other)
    os.kill(runner, signal.SIGKILL)
    assert ended(zygote).pid == runner
    assert not any(alive(pid) for pid in pids), "before its end is reported"
    assert other.run(os.getpid) == other_runner
    other.close()


def test_a_rank_that_is_stopped_for_too_long_is_ended(tmp_path: Path) -> None:
    """And not one that runs, or whose parent is stopped as well, as when a batch system suspends a job."""
    script = (
        "import os, signal, sys, time; from mpiflow.worker.zygote import exec_zygote\n"
        "zygote = exec_zygote(); zygote.watch_rank(0.4); print('there', flush=True); time.sleep(1000)"
    )
    shell = f"{sys.executable} -c {shlex.quote(script)} & echo $!; wait $!; echo $?; sleep 1000"
    above = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert above.stdout is not None
    try:
        rank = int(above.stdout.readline())
        assert above.stdout.readline() == "there\n"
        time.sleep(1.0)
        assert alive(rank), "it runs"
        os.kill(above.pid, signal.SIGSTOP)
        os.kill(rank, signal.SIGSTOP)
        time.sleep(1.0)
        assert alive(rank), "its job is suspended"
        os.kill(above.pid, signal.SIGCONT)
        assert above.stdout.readline() == "137\n", "killed"
    finally:
        os.killpg(above.pid, signal.SIGKILL)
        above.communicate()


def test_runners_die_with_a_zygote_that_is_killed() -> None:
    zygote = exec_zygote()
    bare = Bare(zygote)
    pid = started(zygote, bare)
    os.kill(zygote.pid, signal.SIGKILL)
    assert eventually(lambda: not alive(pid))
    assert eventually(lambda: not alive(zygote.pid))
    with pytest.raises(EOFError, match="the zygote has ended"):
        zygote.hear()
    zygote.close()
    bare.close()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_it_does_not_mind_what_batch_systems_send(zygote: Zygote, number: str) -> None:
    Bare(zygote).close()  # it answers: from here on it is at work
    heard(zygote, 2)
    os.kill(zygote.pid, signal.Signals[number])
    bare = Bare(zygote)
    assert bare.run(divmod, 7, 2) == (3, 1)
    bare.close()


_OWNER = """
import os, signal, socket, subprocess, sys, time
sys.path[:0] = [{tests!r}]
from test_zygote import Bare, leave_orphans, started
from mpiflow.worker.zygote import exec_zygote, fork_zygote
zygote = {kind}()
bare = Bare(zygote)
pids = [zygote.pid, started(zygote, bare)]
bare.send(leave_orphans({path!r}))
while not os.path.exists({path!r}):
    time.sleep(0.001)
pids += map(int, open({path!r}).read().split())
print(*pids, flush=True)
{end}
"""


@pytest.mark.parametrize("kind", ["exec_zygote", "fork_zygote"])
@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "zygote.close()", "pass"]
)
def test_nothing_is_left_when_its_owner_ends_in_any_way(kind: str, end: str, tmp_path: Path) -> None:
    script = _OWNER.format(kind=kind, end=end, tests=os.path.dirname(__file__), path=str(tmp_path / "pids"))
    owner = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=30)
    pids = [int(pid) for pid in owner.stdout.split()]
    assert len(pids) == 6
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_it_is_forked_before_mpi_is_there() -> None:
    script = (
        "import sys; sys.modules['mpi4py.MPI'] = sys\n"
        "from mpiflow.worker.zygote import fork_zygote\n"
        "fork_zygote()"
    )
    refused = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert "before MPI is there" in refused.stderr


@pytest.mark.parametrize("kind", ["exec_zygote", "fork_zygote"])
def test_python_has_nothing_to_complain_of(kind: str) -> None:
    """As with ``python -X dev``, where it names what is not closed or not waited for."""
    script = f"import gc; from mpiflow.worker.zygote import {kind}; z = {kind}(); gc.collect(); z.close()"
    line = [sys.executable, "-X", "dev", "-W", "always", "-c", script]
    ended = subprocess.run(line, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
