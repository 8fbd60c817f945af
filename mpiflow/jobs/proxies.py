"""``python -m mpiflow.jobs.proxies -n 8 -ppn 4 -- COMMAND``: a hydra whose proxies are started by GNU parallel.

It is a real MPI world: hydra's "manual" launcher prints the command of each host's proxy and waits for them to connect,
and GNU parallel starts them: by ssh, the command of the i-th host on the i-th host, or on this machine. What was
rejected is the obvious form, one process a line of ``parallel``: those are worlds of one.

What must be known of it:

* until all proxies have connected hydra heeds no signal, and waits for ever for one that cannot be started. So
  parallel's failure ends it, by SIGKILL;
* what hydra prints before ``HYDRA_LAUNCH_END`` is the commands, and what it prints afterwards is the job's.

The exit code is hydra's, and 255 where a proxy could not be started. SIGUSR1 and SIGTERM are passed on to hydra, which
hands them to the ranks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from mpiflow.jobs.hosts import granted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

#: Exit code where a proxy could not be started.
NOT_STARTED = 255
#: Seconds that hydra has to end by itself when parallel has ended.
GRACE = 10.0

_COMMAND, _LAST = b"HYDRA_LAUNCH: ", b"HYDRA_LAUNCH_END"


def main(arguments: Sequence[str]) -> int:
    """Start the ranks and wait for them; returns the exit code.

    Parameters
    ----------
    arguments : sequence of str
        The command line.
    """
    options, command = _parse(list(arguments))
    for program in (options.mpiexec, "parallel"):
        if shutil.which(program) is None:
            print(f"mpiflow: {program}: there is no such program on {os.uname().nodename}", file=sys.stderr)
            return 127
    hosts = [] if options.here else [host.name for host in granted(os.environ)]
    line = [options.mpiexec, "-launcher", "manual", "-n", str(options.n)]
    if hosts:
        line += ["-hosts", ",".join(hosts), "-ppn", str(options.ppn)]
    else:
        line += ["-hosts", "localhost"]
    with tempfile.TemporaryFile() as commands:
        # parallel reads the commands from the file: a pipe would end with the reader of another's output
        hydra = subprocess.Popen([*line, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        proxies: subprocess.Popen[bytes] | None = None
        try:
            _pass_on(hydra)
            assert hydra.stdout is not None
            count = _write_commands(hydra.stdout, commands, hosts)
            if count == 0:
                hydra.kill()
                return hydra.wait() or NOT_STARTED
            commands.seek(0)
            proxies = subprocess.Popen(parallel_line(hosts), stdin=commands, stdout=sys.stderr)
            return _follow(hydra, proxies)
        finally:
            for process in (proxies, hydra):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()


def parallel_line(hosts: Sequence[str]) -> list[str]:
    """GNU parallel's command line; the lines it reads are a host and a command each, or a command.

    Parameters
    ----------
    hosts : sequence of str
        Where the proxies go; none: they run here.
    """
    how = ["parallel", "--will-cite", "--ungroup", "--jobs", "0", "--halt", "now,fail=1"]
    return [*how, "--colsep", "\t", "ssh -o BatchMode=yes {1} {2}"] if hosts else [*how, "{=uq=}"]


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m mpiflow.jobs.proxies", allow_abbrev=False)
    parser.add_argument("-n", type=int, required=True, help="how many ranks")
    parser.add_argument("-ppn", type=int, default=1, help="ranks on each host")
    parser.add_argument("--here", action="store_true", help="all ranks on this machine, whatever hosts the job has")
    parser.add_argument("--mpiexec", default="mpiexec", help="hydra's")
    place = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:place])
    command = arguments[place + 1 :]
    if not command:
        parser.error("which command? It comes after --")
    return options, command


def _pass_on(hydra: subprocess.Popen[bytes]) -> None:
    """Hand what this process is told to hydra, which hands it to the ranks."""

    def tell(number: int, frame: object) -> None:
        hydra.send_signal(number)

    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)


def _write_commands(lines: IO[bytes], commands: IO[bytes], hosts: Sequence[str]) -> int:
    """Take the proxies' commands from what hydra prints; how many there were."""
    count = 0
    for line in iter(lines.readline, b""):
        if line.startswith(_LAST):
            break
        if line.startswith(_COMMAND):
            if count < len(hosts):
                commands.write(hosts[count].encode() + b"\t")
            commands.write(line.removeprefix(_COMMAND))
            count += 1
        else:
            sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
    return count


def _follow(hydra: subprocess.Popen[bytes], proxies: subprocess.Popen[bytes]) -> int:
    """Print what the job prints until hydra ends, or is ended because parallel has failed; the exit code."""
    assert hydra.stdout is not None
    printing = threading.Thread(target=shutil.copyfileobj, args=(hydra.stdout, sys.stdout.buffer, 1), daemon=True)
    printing.start()
    failed_at: float | None = None
    while hydra.poll() is None:
        if failed_at is None and _failed(proxies):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            hydra.kill()
            hydra.wait()
            break
        time.sleep(0.05)
    printing.join(GRACE)
    sys.stdout.buffer.flush()
    if hydra.returncode not in (-signal.SIGKILL, NOT_STARTED):
        return hydra.returncode if hydra.returncode >= 0 else 128 - hydra.returncode
    # hydra, too, ends with 255 when it sees a proxy go, and parallel, which is ending the others, may be the later one
    ended_by = time.monotonic() + GRACE
    while proxies.poll() is None and time.monotonic() < ended_by:
        time.sleep(0.05)
    if _failed(proxies):
        code = proxies.returncode
        print(f"mpiflow: parallel ended with code {code}: a proxy has not started, or has died", file=sys.stderr)
    return NOT_STARTED if failed_at is not None or hydra.returncode == NOT_STARTED else 128 + signal.SIGKILL


def _failed(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() not in (None, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
