"""GNU parallel as a launcher: a real MPI world, whose proxies it starts, here or by ssh."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from launching import Jobs, Mpiexec

SCRIPT = """
import sys, time, mpiflow

@mpiflow.python_app
def double(number):
    return 2 * number

print(sum(double(number).result() for number in range(20)), sys.argv[1:], flush=True)
if sys.argv[1:] == ["wait"]:
    time.sleep(60)
sys.exit(7)
"""
#: It goes to no other host, and says to which it was asked to.
SSH = """#!/bin/bash
echo "${*: -2:1}" >>"$PLACE/hosts-asked"
[ "${*: -2:1}" != "$UNREACHABLE" ] || { echo "ssh: no route to $UNREACHABLE" >&2; exit 255; }
exec bash -c "${*: -1}"
"""


@pytest.fixture
def proxies(launcher: Mpiexec) -> list[str]:
    if launcher.flavour != "hydra":
        pytest.skip("this launcher is hydra's")
    if shutil.which("parallel") is None:
        pytest.skip("GNU parallel is not installed")
    return [sys.executable, "-m", "mpiflow.jobs.proxies", "--mpiexec", launcher.path]


@pytest.fixture
def hosts(jobs: Jobs) -> dict[str, str]:
    """An environment with a hostfile of PBS, and an ssh that reaches this machine under any name."""
    directory = jobs.directory
    ssh = directory / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    (directory / "hostfile").write_text("127.0.0.1\n127.0.0.1\nlocalhost\nlocalhost\n")
    path = f"{ssh.parent}:{os.environ['PATH']}"
    return {"PATH": path, "PLACE": str(directory), "PBS_NODEFILE": str(directory / "hostfile"), "UNREACHABLE": "none"}


def test_a_world_on_this_machine(jobs: Jobs, proxies: list[str]) -> None:
    """Words reach the script as they are, and its exit code comes back."""
    script = str(jobs.write("script.py", SCRIPT))
    line = [*proxies, "--here", "-n", "3", "--", sys.executable, "-m", "mpiflow", script, "two words", "$(x)", "'"]
    ended = jobs.command(line).wait(60)
    assert (ended.code, ended.out, ended.err) == (7, "380 ['two words', '$(x)', \"'\"]\n", ""), str(ended)


def test_a_world_over_the_hosts_of_the_batch_system(jobs: Jobs, proxies: list[str], hosts: dict[str, str]) -> None:
    line = [*proxies, "-n", "4", "-ppn", "2", "--", sys.executable, "-m", "mpiflow", "doctor", "--quick"]
    ended = jobs.command(line, env=hosts).wait(60)
    assert (ended.code, ended.out) == (0, "mpiflow doctor: well: 4 ranks in one world on 1 nodes\n"), str(ended)
    asked = (jobs.directory / "hosts-asked").read_text().split()
    assert sorted(asked) == ["127.0.0.1", "localhost"]


def test_a_host_that_is_not_reached_ends_it(jobs: Jobs, proxies: list[str], hosts: dict[str, str]) -> None:
    """hydra alone would wait for its proxy for ever."""
    line = [*proxies, "-n", "4", "-ppn", "2", "--", sys.executable, "-m", "mpiflow", "doctor", "--quick"]
    ended = jobs.command(line, env=hosts | {"UNREACHABLE": "localhost"}).wait(60)
    assert ended.code == 255, str(ended)
    assert "ssh: no route to localhost" in ended.err
    assert "mpiflow: parallel ended with code 255: a proxy has not started, or has died" in ended.err


def test_sigterm_reaches_the_ranks(jobs: Jobs, proxies: list[str]) -> None:
    script = str(jobs.write("script.py", SCRIPT))
    line = [*proxies, "--here", "-n", "3", "--", sys.executable, "-m", "mpiflow", script, "wait"]
    running = jobs.command(line).shows("380 ['wait']")
    running.process.send_signal(signal.SIGTERM)
    assert running.wait(60).code == 143


def test_without_hydra_it_says_so(jobs: Jobs, proxies: list[str], tmp_path: Path) -> None:
    line = [*proxies[:-1], str(tmp_path / "none"), "-n", "2", "--", "true"]
    ended = jobs.command(line).wait(60)
    assert ended.code == 127
    assert ended.err == f"mpiflow: {tmp_path}/none: there is no such program on {os.uname().nodename}\n"
