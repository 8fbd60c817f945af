"""Nothing of ours can be reached from outside: no process of a run listens on an address, by UDP, or on a path.

MPI opens sockets of its own in the ranks, and so do launchers. What the ranks of a bare mpi4py program have with the
same launcher is theirs; ranks and guardians may have that and nothing else, and what is below a rank nothing at all.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from launching import Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(120)]

#: In /proc/net/tcp, and the flag of a listener in /proc/net/unix (__SO_ACCEPTCON).
TCP_LISTEN, ACCEPTS = "0A", 0x10000
SCRIPT = """
    import os, time
    import mpiflow

    @mpiflow.python_app
    def waits(path):
        open(path, "w").close()
        time.sleep(1000)

    @mpiflow.bash_app
    def sleeps(path):
        return f"touch {path}; sleep 1000"

    calls = [waits("a"), waits("b"), sleeps("c"), waits("d")]
    while not all(map(os.path.exists, "abcd")):
        time.sleep(0.01)
    print("under way", flush=True)
    calls[0].result()
    """
BARE = """
    import time
    from mpi4py import MPI
    MPI.COMM_WORLD.Dup()
    ranks = MPI.COMM_WORLD.gather(MPI.COMM_WORLD.Get_rank())
    if ranks:
        print("under way", flush=True)
    time.sleep(1000)
    """


class Open(NamedTuple):
    """A socket that others can reach, and the kind of process that has it."""

    who: str
    kind: str


def listeners() -> dict[str, str]:
    """Sockets of this machine that can be reached from outside their process, by inode: what kind, and where."""
    found: dict[str, str] = {}
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path("/proc/net", kind).read_text().splitlines()[1:]:
                fields = line.split()
                if kind.startswith("udp") or fields[3] == TCP_LISTEN:
                    found[fields[9]] = kind
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        bound = len(fields) > 7  # a datagram socket with a name can be written to without a listen
        if int(fields[3], 16) & ACCEPTS or (bound and fields[4] == "0002"):
            found[fields[6]] = "unix"
    return found


def open_by(jobs: Jobs) -> tuple[Counter[Open], set[str]]:
    """Sockets that processes of these jobs have and others can reach; and the kinds of processes that were seen."""
    reachable = listeners()
    pids = jobs.pids()
    parents = {pid: _parent(pid) for pid in pids}
    counted: Counter[Open] = Counter()
    seen: set[str] = set()
    for pid in pids:
        who = _who(pid, parents)
        seen.add(who)
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                    if target.startswith("socket:[") and (kind := reachable.get(target[8:-1])):
                        counted[Open(who, kind)] += 1
    return counted, seen


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0


def _has_mpi(pid: int) -> bool:
    try:
        return "libmpi" in Path(f"/proc/{pid}/maps").read_text()
    except FileNotFoundError:
        return False


def _who(pid: int, parents: dict[int, int]) -> str:
    """A rank: it has MPI loaded. Above it is the launcher's, guardians included; below it is all that runs tasks."""
    if _has_mpi(pid):
        return "rank"
    above = parents.get(pid, 0)
    while above:
        if _has_mpi(above):
            return "below a rank"
        above = parents.get(above, 0)
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return "guardian" if os.path.basename(command[0]).startswith(b"python") else "launcher"


def test_nothing_of_ours_listens(jobs: Jobs, launcher: Mpiexec, tmp_path: Path) -> None:
    """Tasks in Python and in bash under way, two runners for each rank."""
    own = jobs.start(SCRIPT, options=["--runners-per-rank", "2"]).shows("under way")
    ours, seen = open_by(jobs)
    assert {"rank", "below a rank", "launcher"} <= seen
    assert own.process.poll() is None
    jobs.kill_all()
    bare = type(jobs)(tmp_path / "bare")
    bare.directory.mkdir()
    try:
        script = str(bare.write("bare.py", BARE))
        bare.command([*launcher.line(3), sys.executable, script]).shows("under way")
        theirs, _ = open_by(bare)
    finally:
        bare.kill_all()
    assert [found for found in ours if found.who == "below a rank"] == []
    # A guardian is what the launcher has started: like a bare rank, it may have inherited something of the launcher's.
    of_ranks = {found: number for found, number in ours.items() if found.who in ("rank", "guardian")}
    assert {found for found, number in of_ranks.items() if number > theirs[Open("rank", found.kind)]} == set()


def test_a_listener_would_be_seen(jobs: Jobs, launcher: Mpiexec) -> None:
    """The test above can fail: a task that listens is found, by each kind of socket."""
    script = """
        import os, socket, time
        import mpiflow

        @mpiflow.python_app
        def listens(path):
            tcp, unix = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
            unix.bind("listening.sock")
            unix.listen()
            udp = socket.socket(type=socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", 0))
            open(path, "w").close()
            time.sleep(1000)

        call = listens("a")
        while not os.path.exists("a"):
            time.sleep(0.01)
        print("under way", flush=True)
        call.result()
        """
    jobs.start(script, ranks=2).shows("under way")
    found, _ = open_by(jobs)
    jobs.kill_all()
    assert {open_.kind for open_ in found if open_.who == "below a rank"} == {"tcp", "unix", "udp"}
